"""Keys' ranges, and the parts of a transaction."""

from __future__ import annotations

from typing import Any

from trunkline.etcd.messages import Compare, RequestOp

# Compare.CompareTarget; Compare.CompareResult is always EQUAL, 0.
_CREATE_REVISION = 1
_MOD_REVISION = 2
_LEASE = 4


def prefix_end(prefix: bytes) -> bytes:
    """Return the ``range_end`` with which a range from ``prefix`` holds every key that starts with it."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"  # etcd: to the end of all keys


def absent(key: bytes) -> Any:
    """Require that a key does not exist."""
    return Compare(target=_CREATE_REVISION, key=key, create_revision=0)


def revision_is(key: bytes, mod_revision: int) -> Any:
    """Require that a key was last written at this revision."""
    return Compare(target=_MOD_REVISION, key=key, mod_revision=mod_revision)


def lease_is(key: bytes, lease: int) -> Any:
    """Require that a key exists and belongs to this lease."""
    return Compare(target=_LEASE, key=key, lease=lease)


def put(key: bytes, value: bytes, *, lease: int = 0) -> Any:
    """Put one key."""
    return RequestOp(request_put={"key": key, "value": value, "lease": lease})


def delete(key: bytes, range_end: bytes = b"") -> Any:
    """Delete one key, or all from it up to ``range_end``."""
    return RequestOp(request_delete_range={"key": key, "range_end": range_end})


def read(key: bytes, range_end: bytes = b"", *, revision: int = 0) -> Any:
    """Read one key, or all from it up to ``range_end``, as of a revision (0: now)."""
    return RequestOp(request_range={"key": key, "range_end": range_end, "revision": revision})
