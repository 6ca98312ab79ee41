"""Random histories, run on two stores that have to answer alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from hypothesis import strategies as st

from trunkline.errors import StoreRequestError
from trunkline.store.contract import (
    Changed,
    Condition,
    Delete,
    Entry,
    Get,
    KeyHasLease,
    KeyHasRevision,
    KeyIsAbsent,
    Operation,
    Put,
    Snapshot,
    Store,
    Transaction,
)

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_KEYS = ("a", "ab", "a/", "a/b", "b")
_LEASES = 3
_WAIT = 20.0


@dataclass(frozen=True)
class Revoke:
    """Revoke the lease of this index."""

    lease: int


Step: TypeAlias = Transaction | Revoke
"""In steps, leases are indices (0: none) and a condition's revision is the index of the key that has it now."""

_key = st.sampled_from(_KEYS)
_lease = st.integers(0, _LEASES)
_condition: SearchStrategy[Condition] = st.one_of(
    st.builds(KeyIsAbsent, _key),
    st.builds(KeyHasLease, _key, _lease),
    st.builds(KeyHasRevision, _key, st.integers(0, len(_KEYS) - 1)),
)
_operation: SearchStrategy[Operation] = st.one_of(
    st.builds(Put, _key, st.binary(max_size=3), _lease),
    st.builds(Delete, _key, st.booleans()),
    st.builds(Get, _key, st.booleans()),
)
_branch = st.lists(_operation, max_size=3).map(tuple)
histories: SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.builds(Transaction, st.lists(_condition, max_size=2).map(tuple), _branch, _branch),
        st.builds(Revoke, st.integers(1, _LEASES)),
    ),
    max_size=12,
)
"""Lists of steps."""


def run(store: Store, prefix: str, steps: list[Step]) -> list[Any]:
    """Run a history below ``prefix``, which must be empty; return everything seen, with numbers that
    don't depend on the store: two stores are alike if they return the same.
    """
    leases = [store.grant(60, timeout=_WAIT) for _ in range(_LEASES)]
    try:
        return _Run(store, prefix, [0, *(lease.id for lease in leases)]).run(steps)
    finally:
        for lease in leases:
            lease.close(_WAIT)


@dataclass
class _Run:
    store: Store
    prefix: str
    leases: list[int]
    revisions: dict[int, int] = field(default_factory=dict)

    def run(self, steps: list[Step]) -> list[Any]:
        start = self.store.list(self.prefix, timeout=_WAIT).revision
        seen = [self._step(step) for step in steps]
        self.store.transact(Transaction((), (Put(f"{self.prefix}end", b""),)), timeout=_WAIT)
        seen.append(self._entries(self.store.list(self.prefix, timeout=_WAIT).entries))
        with self.store.watch(self.prefix, prefix=True, after=start) as watch:
            while True:
                event = watch.next(_WAIT)
                assert isinstance(event, Changed), event
                deleted = tuple(key.removeprefix(self.prefix) for key in event.deleted)
                seen.append((self._entries(event.put), deleted, self._revision(event.revision)))
                if event.put and event.put[-1].key == f"{self.prefix}end":
                    return seen

    def _step(self, step: Step) -> Any:
        if isinstance(step, Revoke):
            return self.store.revoke(self.leases[step.lease], timeout=_WAIT)
        now = self.store.list(self.prefix, timeout=_WAIT)
        try:
            result = self.store.transact(
                Transaction(
                    tuple(self._condition(condition, now) for condition in step.conditions),
                    tuple(self._operation(operation) for operation in step.then),
                    tuple(self._operation(operation) for operation in step.otherwise),
                ),
                timeout=_WAIT,
            )
        except StoreRequestError:
            return "refused"
        return result.succeeded, [self._entries(read) for read in result.reads]

    def _condition(self, condition: Condition, now: Snapshot) -> Condition:
        key = self.prefix + condition.key
        match condition:
            case KeyIsAbsent():
                return KeyIsAbsent(key)
            case KeyHasLease():
                return KeyHasLease(key, self.leases[condition.lease])
            case KeyHasRevision():
                other = self.prefix + _KEYS[condition.mod_revision]
                revisions = [entry.mod_revision for entry in now.entries if entry.key == other]
                return KeyHasRevision(key, revisions[0] if revisions else 0)

    def _operation(self, operation: Operation) -> Operation:
        key = self.prefix + operation.key
        match operation:
            case Put():
                return Put(key, operation.value, self.leases[operation.lease])
            case Delete():
                return Delete(key, operation.prefix)
            case Get():
                return Get(key, operation.prefix)

    def _entries(self, entries: tuple[Entry, ...]) -> list[Any]:
        return [
            (
                entry.key.removeprefix(self.prefix),
                entry.value,
                self._revision(entry.create_revision),
                self._revision(entry.mod_revision),
                self.leases.index(entry.lease),
            )
            for entry in entries
        ]

    def _revision(self, revision: int) -> int:
        """Number revisions in the order in which they are met: others may write to the same store."""
        return self.revisions.setdefault(revision, len(self.revisions))
