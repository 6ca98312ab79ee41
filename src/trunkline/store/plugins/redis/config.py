"""Where the Redis server is, and what it is shown."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from trunkline.errors import ConfigurationError
from trunkline.etcd.credentials import VARIABLE, Credentials, read_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORT = 6379
PASSWORD_VARIABLE = "REDISCLI_AUTH"  # noqa: S105 - the name of redis-cli's variable
_IS_SECURE = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """One server and who we are to it.

    Attributes:
        host: Its name or address.
        port: Its port.
        database: The number of the database.
        is_secure: Whether TLS is used.
        credentials: What it is shown and must show.
    """

    host: str
    port: int = DEFAULT_PORT
    database: int = 0
    is_secure: bool = False
    credentials: Credentials = field(default_factory=Credentials)

    @property
    def url(self) -> str:
        """The place, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.is_secure else ''}://{host}:{self.port}/{self.database}"

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
    ) -> RedisConfig:
        """Read the place from ``url``, and credentials from arguments, else from a file, else from the environment.

        Args:
            url: ``redis://host:port/database``, or ``rediss://`` for TLS (``valkey://`` and ``valkeys://`` mean the
                same). The port is 6379 and the database 0 if left out. One server: several, Redis Cluster and
                Sentinel are not supported.
            username: Else from the file; without one, a password is that of the user ``default``.
            password: Else from the file, or ``REDISCLI_AUTH``, which redis-cli reads, too.
            ca: File with the certificates to trust; else from the file; else the system's are trusted.
            cert: File with the client's certificate; else from the file.
            key: File with its private key; else from the file.
            credentials: A credentials file, see :func:`trunkline.etcd.credentials.read_credentials`; else
                ``TRUNKLINE_STORE_CREDENTIALS`` names it. Empty for none, whatever the environment says.
            environment: Usually ``os.environ``.

        Raises:
            ConfigurationError: Something of this can't be used, or certificates are given and TLS is not asked for.
        """
        place = _parse_place(url)
        file = environment.get(VARIABLE) if credentials is None else credentials
        if file:
            found = read_credentials(file)
        else:
            found = Credentials(password=environment.get(PASSWORD_VARIABLE, "") if credentials is None else "")
        if username and not password:
            raise ConfigurationError(f"{place.url}: username {username!r} without a password", url=place.url)
        if password:
            found = replace(found, username=username or "", password=password)
        if bool(cert) != bool(key):
            raise ConfigurationError(f"{place.url}: a client certificate needs both cert and key", url=place.url)
        if ca:
            found = replace(found, ca=Path(ca))
        if cert and key:
            found = replace(found, cert=Path(cert), key=Path(key))
        _check_security(place, found)
        return replace(place, credentials=found)


def _parse_place(url: str) -> RedisConfig:
    parts = urlsplit(url)
    if parts.scheme not in _IS_SECURE:
        raise ConfigurationError(
            f"a Redis URL with scheme {parts.scheme!r}: use redis:// (plain) or rediss:// (TLS)", scheme=parts.scheme
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            "a Redis URL takes no user or password here; give them as username and password, in a credentials file, "
            f"or the password in {PASSWORD_VARIABLE}"
        )
    if "," in parts.netloc:
        raise ConfigurationError(
            f"{url}: several servers; Redis Cluster and Sentinel are not supported. Name the one primary", url=url
        )
    try:
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError as error:
        raise ConfigurationError(f"Redis URL {url!r}: {error}", url=url) from error
    database = parts.path.strip("/") or "0"
    if not host or not (database.isascii() and database.isdigit()) or parts.query or parts.fragment:
        raise ConfigurationError(f"Redis URL {url!r} is not of the form redis://host:port/database", url=url)
    return RedisConfig(host, port, int(database), _IS_SECURE[parts.scheme])


def _check_security(place: RedisConfig, found: Credentials) -> None:
    if place.is_secure:
        for path in (found.ca, found.cert, found.key):
            if path is not None and not path.is_file():
                raise ConfigurationError(f"{place.url}: there is no file {path}", url=place.url, path=str(path))
        return
    if found.has_certificates:
        raise ConfigurationError(
            f"{place.url} is plain text, but there are certificates, which need TLS: write rediss://", url=place.url
        )
    if found.password:
        _log.warning(
            "%s is plain text: whoever can listen on the way reads the password; write rediss:// for TLS", place.url
        )
