"""Where the etcd is and how to prove who we are."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from trunkline.errors import ConfigurationError
from trunkline.etcd.credentials import VARIABLE, Credentials, read_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

DEFAULT_PORT = 2379
_IS_SECURE = {"etcd": False, "http": False, "etcds": True, "https": True}


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """Settings of a client; equal settings share one client per process.

    Attributes:
        endpoints: ``host:port`` of each member, IPv6 addresses in brackets.
        is_secure: Whether to use TLS. There is no way back to plain text from it.
        credentials: Who we are, and whom we trust (without ``ca``: the authorities gRPC brings).
    """

    endpoints: tuple[str, ...]
    is_secure: bool = False
    credentials: Credentials = field(default_factory=Credentials)

    @property
    def url(self) -> str:
        """The endpoints as one URL, without credentials."""
        return f"{'etcds' if self.is_secure else 'etcd'}://{','.join(self.endpoints)}"

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        credentials: str | Path | None = None,
        environment: Mapping[str, str],
    ) -> EtcdConfig:
        """Read endpoints from ``url``, and credentials from arguments, else from a file, else from the environment.

        A file, given by the argument or by ``TRUNKLINE_STORE_CREDENTIALS``, takes the place of etcd's own
        ``ETCDCTL_*`` variables: these are looked at only where there is none. User and password come from one
        source, and so do certificate and key.

        Args:
            url: Comma-separated ``etcd://host:port`` (or ``http://``, plain text) or ``etcds://`` (or ``https://``,
                TLS). The scheme is needed once; the port is 2379 if left out.
            username: Else from the file, or ``ETCDCTL_USER``, which is ``name:password``, or just the name beside
                ``ETCDCTL_PASSWORD``.
            password: The password of ``username``.
            ca: File with the certificates to trust; else from the file, or ``ETCDCTL_CACERT``.
            cert: File with the client's certificate; else from the file, or ``ETCDCTL_CERT``.
            key: File with its private key; else from the file, or ``ETCDCTL_KEY``.
            credentials: A credentials file, see :func:`trunkline.etcd.credentials.read_credentials`. Empty for none,
                whatever the environment says.
            environment: Usually ``os.environ``.

        Raises:
            ConfigurationError: Something of this can't be used, or asks for TLS where the URL says plain text.
        """
        endpoints, is_secure = _parse_endpoints(url)
        file = environment.get(VARIABLE) if credentials is None else credentials
        if file:
            found = read_credentials(file)
        else:
            found = Credentials() if credentials is not None else _from_environment(environment)
        if username is not None:
            if not password:
                raise ConfigurationError(f"{url}: username {username!r} without a password", url=url, username=username)
            found = replace(found, username=username, password=password)
        elif password:
            raise ConfigurationError(f"{url}: a password without a username", url=url)
        if bool(cert) != bool(key):
            raise ConfigurationError(
                f"{url}: a client certificate needs both its files; {'key' if cert else 'cert'} is missing", url=url
            )
        if cert and key:
            found = replace(found, cert=Path(cert), key=Path(key))
        if ca:
            found = replace(found, ca=Path(ca))
        if not is_secure:
            is_asked_for = bool(file or ca or cert) or not _is_http(url)
            found = _in_plain_text(url, found, is_asked_for=is_asked_for)
        return cls(endpoints, is_secure, found)


def _in_plain_text(url: str, found: Credentials, *, is_asked_for: bool) -> Credentials:
    """Return what of the credentials goes over plain text, if there may be such a connection."""
    if found.has_certificates and is_asked_for:
        raise ConfigurationError(
            f"{url} is plain text, but there are certificates, which need TLS: write etcds:// (or https://). If plain "
            "text is meant, give none (ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY count, too, unless you write "
            "http://)",
            url=url,
        )
    if found.has_certificates:
        _log.warning(
            "%s is plain text: the certificates of ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY are not used, and "
            "nothing is encrypted; write etcds:// or https:// for TLS",
            url,
        )
    if found.username:
        _log.warning(
            "%s is plain text: whoever can listen on the way reads the password of user %r; write etcds:// or "
            "https:// for TLS",
            url,
            found.username,
        )
    return replace(found, ca=None, cert=None, key=None)


def _is_http(url: str) -> bool:
    """Return whether plain text was asked for by a name that says nothing else."""
    return url.strip().lower().startswith("http://")


def _from_environment(environment: Mapping[str, str]) -> Credentials:
    username, password = _parse_user(environment.get("ETCDCTL_USER", ""), environment.get("ETCDCTL_PASSWORD", ""))
    ca, cert, key = (environment.get(f"ETCDCTL_{name}") for name in ("CACERT", "CERT", "KEY"))
    if bool(cert) != bool(key):
        raise ConfigurationError(
            f"a client certificate needs both its files; ETCDCTL_{'KEY' if cert else 'CERT'} is missing"
        )
    return Credentials(username, password, _path(ca), _path(cert), _path(key))


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _parse_user(text: str, password: str) -> tuple[str, str]:
    name, colon, rest = (text, ":", password) if password else text.partition(":")
    if (text or password) and not (name and colon and rest):
        raise ConfigurationError("ETCDCTL_USER must be name:password, or a name beside ETCDCTL_PASSWORD")
    return name, rest


def _parse_endpoints(url: str) -> tuple[tuple[str, ...], bool]:
    scheme = url.partition("://")[0] if "://" in url else "etcd"
    endpoints = []
    for part in url.split(","):
        text = part.strip()
        endpoint = urlsplit(text if "://" in text else f"{scheme}://{text}")
        if endpoint.scheme not in _IS_SECURE:
            raise ConfigurationError(
                f"etcd endpoint with scheme {endpoint.scheme!r}: use etcd://host:port or http://host:port (plain), "
                "etcds://host:port or https://host:port (TLS)",
                scheme=endpoint.scheme,
            )
        if _IS_SECURE[endpoint.scheme] != _IS_SECURE.get(scheme):
            raise ConfigurationError("etcd endpoints must be all plain or all TLS", endpoints=url.count(",") + 1)
        endpoints.append(_host_and_port(endpoint))
    return tuple(dict.fromkeys(endpoints)), _IS_SECURE[scheme]


def _host_and_port(endpoint: SplitResult) -> str:
    if "@" in endpoint.netloc:
        raise ConfigurationError(
            "an etcd endpoint takes no user or password; give them as username and password, in "
            "a credentials file, or in ETCDCTL_USER"
        )
    try:
        host, port = endpoint.hostname, endpoint.port or DEFAULT_PORT
    except ValueError as error:
        raise ConfigurationError(f"etcd endpoint {endpoint.netloc!r}: {error}", endpoint=endpoint.netloc) from error
    if not host or endpoint.path.strip("/") or endpoint.query or endpoint.fragment:
        raise ConfigurationError(
            f"etcd endpoint {endpoint.geturl()!r} is not of the form etcd://host:port", endpoint=endpoint.geturl()
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
