"""A file that says who we are to etcd and whom we trust, so that no secret is in a command line or an environment."""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.errors import ConfigurationError

VARIABLE = "TRUNKLINE_STORE_CREDENTIALS"
"""Names the file, where no argument does."""

MAX_SIZE = 64 << 10
_FILES = ("ca", "cert", "key")
_KEYS = ("user", "password", *_FILES)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What etcd is shown, and what it must show. Empty and None mean that there is none of it.

    Attributes:
        username: User to authenticate as.
        password: Its password.
        ca: File with the certificates to trust (PEM).
        cert: File with the client's certificate chain (PEM).
        key: File with its private key (PEM).
    """

    username: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def has_certificates(self) -> bool:
        """Whether there is anything that only TLS has a use for."""
        return any((self.ca, self.cert, self.key))


def read_credentials(path: str | Path) -> Credentials:
    """Read a credentials file: TOML with any of ``user`` and ``password``, ``ca``, ``cert`` and ``key``.

    The last three are paths, relative ones to the file's own directory.

    Raises:
        ConfigurationError: It can't be read, every user of the machine may read or write it, or it does not hold that.
    """
    where = Path(path).expanduser()
    values = _parse(_read(where), where)
    for key, value in values.items():
        if key not in _KEYS:
            raise _unusable(where, f"has {key!r}; it may have {', '.join(_KEYS)}")
        if not isinstance(value, str) or not value:
            raise _unusable(where, f"has {key!r} without a text")
    for one, other in (("user", "password"), ("password", "user"), ("cert", "key"), ("key", "cert")):
        if one in values and other not in values:
            raise _unusable(where, f"has {one!r} and no {other!r}")
    files = {each: where.parent / Path(values[each]).expanduser() for each in _FILES if each in values}
    return Credentials(values.get("user", ""), values.get("password", ""), **files)


def _read(where: Path) -> bytes:
    try:
        with where.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _unusable(where, "is no file")
            if status.st_mode & stat.S_IRWXO:
                raise _unusable(where, f"may be read or written by every user of this machine; run chmod o= {where}")
            content = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise _unusable(where, f"can't be read: {error.strerror}") from error
    if len(content) > MAX_SIZE:
        raise _unusable(where, f"is larger than {MAX_SIZE:,} bytes")
    return content


def _parse(content: bytes, where: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        line = content[: error.start].count(b"\n") + 1 if isinstance(error, UnicodeDecodeError) else None
        words = f"line {line} is no UTF-8" if line is not None else str(error)
    raise _unusable(where, f"is no TOML: {words}")  # unchained: the other error holds the content


def _unusable(where: Path, flaw: str) -> ConfigurationError:
    return ConfigurationError(f"credentials file {where} {flaw}", path=str(where))
