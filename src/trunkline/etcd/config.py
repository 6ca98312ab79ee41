"""Where the etcd is and how to prove who we are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORT = 2379
_IS_SECURE = {"etcd": False, "http": False, "etcds": True, "https": True}


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """Settings of a client; equal settings share one client per process.

    Attributes:
        endpoints: ``host:port`` of each member, IPv6 addresses in brackets.
        is_secure: Whether to use TLS. There is no way back to plain text from it.
        username: User to authenticate as; empty for none.
        password: Its password.
        ca: File with the certificates to trust (PEM); None for those gRPC brings.
        cert: File with the client's certificate chain (PEM).
        key: File with its private key (PEM).
    """

    endpoints: tuple[str, ...]
    is_secure: bool = False
    username: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

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
        environment: Mapping[str, str],
    ) -> EtcdConfig:
        """Read endpoints from ``url`` and the rest from arguments, else from etcd's own ``ETCDCTL_*`` variables.

        Args:
            url: Comma-separated ``etcd://host:port`` (or ``http://``, plain text) or ``etcds://`` (or ``https://``,
                TLS). The scheme is needed once; the port is 2379 if left out.
            username: Else from ``ETCDCTL_USER``, which is ``name:password``.
            password: The password of ``username``.
            ca: Else from ``ETCDCTL_CACERT``.
            cert: Else from ``ETCDCTL_CERT``.
            key: Else from ``ETCDCTL_KEY``.
            environment: Usually ``os.environ``.

        Raises:
            ConfigurationError: Something of this can't be used.
        """
        endpoints, is_secure = _parse_endpoints(url)
        if not is_secure and (ca or cert or key):
            raise ConfigurationError(f"{url}: certificates need TLS; write etcds:// or https://", url=url)
        if username is None:
            username, password = _parse_user(environment.get("ETCDCTL_USER", ""))
        elif not password:
            raise ConfigurationError(f"{url}: username {username!r} without a password", url=url, username=username)
        if not is_secure:
            return cls(endpoints, username=username, password=password or "")
        cert = cert or environment.get("ETCDCTL_CERT")
        key = key or environment.get("ETCDCTL_KEY")
        if bool(cert) != bool(key):
            missing = "key (or ETCDCTL_KEY)" if cert else "cert (or ETCDCTL_CERT)"
            raise ConfigurationError(f"{url}: a client certificate needs both its files; {missing} is missing", url=url)
        return cls(
            endpoints,
            is_secure=True,
            username=username,
            password=password or "",
            ca=_path(ca or environment.get("ETCDCTL_CACERT")),
            cert=_path(cert),
            key=_path(key),
        )


def _path(text: str | Path | None) -> Path | None:
    return Path(text) if text else None


def _parse_user(text: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if text and not (name and colon and password):
        raise ConfigurationError("ETCDCTL_USER must be name:password")
    return name, password


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
            "an etcd endpoint takes no user or password; give them as username and password or in ETCDCTL_USER"
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
