"""What etcd refuses in a transaction, for stores whose server would not: they all refuse the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.errors import StoreLimitError, StoreRequestError
from trunkline.store.contract import Delete, Put

if TYPE_CHECKING:
    from trunkline.store.contract import Operation, Transaction

MAX_REQUEST_SIZE = 1536 * 1024
"""Bytes of keys and values in one transaction: etcd's default ``--max-request-bytes``."""

MAX_OPERATIONS = 128
"""In each part of a transaction: etcd's default ``--max-txn-ops``."""


def check_transaction(transaction: Transaction, where: str) -> None:
    """Refuse a transaction as etcd would, without looking at what is stored.

    Args:
        transaction: What to look at.
        where: The store, for messages.

    Raises:
        StoreRequestError: It writes a key twice or names an empty key.
        StoreLimitError: It is over 1.5 MiB or 128 operations.
    """
    parts = (transaction.conditions, transaction.then, transaction.otherwise)
    longest = max(map(len, parts))
    if longest > MAX_OPERATIONS:
        raise StoreLimitError(
            f"{where}: a transaction of {longest} operations; it takes {MAX_OPERATIONS}",
            operations=longest,
            limit=MAX_OPERATIONS,
        )
    if not all(part.key for some in parts for part in some if not getattr(part, "prefix", False)):
        raise StoreRequestError(f"{where}: a transaction with an empty key")
    size = 0
    for branch in (transaction.then, transaction.otherwise):
        puts = [operation for operation in branch if isinstance(operation, Put)]
        size += sum(len(put.key.encode(errors="surrogateescape")) + len(put.value) for put in puts)
        _check_duplicates(branch, puts, where)
    if size > MAX_REQUEST_SIZE:
        raise StoreLimitError(
            f"{where}: a request of {size} bytes; it takes {MAX_REQUEST_SIZE}", size=size, limit=MAX_REQUEST_SIZE
        )


def matches(name: str, key: str, *, prefix: bool) -> bool:
    """Return whether a key is the one named, or begins with it."""
    return name.startswith(key) if prefix else name == key


def _check_duplicates(branch: tuple[Operation, ...], puts: list[Put], where: str) -> None:
    keys = {put.key for put in puts}
    deletes = [operation for operation in branch if isinstance(operation, Delete)]
    twice = len(keys) < len(puts) or any(
        matches(key, delete.key, prefix=delete.prefix) for key in keys for delete in deletes
    )
    if twice:
        raise StoreRequestError(f"{where}: a transaction writes one key twice (duplicate key given)")
