"""Nothing that a directory does touches a key outside its namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.directory import Directory
from trunkline.errors import AgentNotFoundError
from trunkline.metadata.key import MetadataKey, places
from trunkline.store import open_store
from trunkline.store.contract import Delete, Entry, Lease, Put, Snapshot, Store, Transaction, TransactionResult, Watch
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Hashable, Iterator

    from trunkline.testing.clock import FakeClock

ONE, TWO, THREE = "1" * 32, "2" * 32, "3" * 32
OUTSIDE = (
    "/prod",
    "/prod.",
    "/prod0",
    "/prodigal/a/metadata",
    "/dev/.presence/a",
    "/dev/a/",
    "/nixl",
    "/nixl/agentsa/",
)


class Recorder(Store):
    """Passes everything on, and notes which keys and prefixes were named, by whichever of its handles."""

    def __init__(self, store: Store, named: set[str]) -> None:
        self._store = store
        self.named = named

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def identity(self) -> Hashable:
        return self._store.identity

    def share(self) -> Store:
        return Recorder(self._store.share(), self.named)

    def get(self, key: str, *, timeout: float | None) -> tuple[Entry | None, int]:
        self.named.add(key)
        return self._store.get(key, timeout=timeout)

    def list(self, prefix: str, *, keys_only: bool = False, timeout: float | None) -> Snapshot:
        self.named.add(prefix)
        return self._store.list(prefix, keys_only=keys_only, timeout=timeout)

    def transact(self, transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        for part in (*transaction.conditions, *transaction.then, *transaction.otherwise):
            self.named.add(part.key)
        return self._store.transact(transaction, timeout=timeout)

    def grant(self, ttl: float, *, on_lost: Callable[[], None] | None = None, timeout: float | None) -> Lease:
        return self._store.grant(ttl, on_lost=on_lost, timeout=timeout)

    def revoke(self, lease: int, *, timeout: float | None) -> bool:
        return self._store.revoke(lease, timeout=timeout)

    def time_to_live(self, lease: int, *, timeout: float | None) -> float | None:
        return self._store.time_to_live(lease, timeout=timeout)

    def watch(
        self, key: str, *, prefix: bool = False, after: int | None = None, wake: threading.Event | None = None
    ) -> Watch:
        self.named.add(key)
        return self._store.watch(key, prefix=prefix, after=after, wake=wake)

    def close(self) -> None:
        self._store.close()


@pytest.fixture(params=["/prod", "/nixl/agents", "/nixl/agents/"])
def bounded(request: pytest.FixtureRequest) -> str:
    """A namespace; those that are searched begin with the first of its places."""
    namespace: str = request.param
    return namespace


@pytest.fixture
def recorder(clock: FakeClock) -> Iterator[Recorder]:
    with Recorder(open_store("memory://boundary", clock=clock), set()) as recorder:
        yield recorder


def test_every_key_that_is_named_lies_under_the_namespace(bounded: str, recorder: Recorder, clock: FakeClock) -> None:
    neighbours = tuple(Put(key, b"theirs") for key in OUTSIDE)
    with open_store("memory://boundary", clock=clock) as other:
        other.transact(Transaction((), neighbours), timeout=1)
        left_over = MetadataKey(bounded, "left")  # as NIXL leaves it: without a lease
        deeper = Put(f"{left_over.agent_prefix}deeper/metadata", b"another namespace's")
        other.transact(
            Transaction((), (Put(left_over.marker, b""), Put(str(left_over), b"old"), deeper)),
            timeout=1,
        )
        directory = Directory(recorder, namespace=bounded, clock=clock)
        with directory.watch("*", include_nixl=True), directory.open_publisher("left", incarnation=THREE) as heir:
            first = directory.open_publisher("a", incarnation=ONE)
            first.publish(b"metadata", catalog=b"names")
            first.publish(b"part", label="part")
            first.update(attributes={"role": "decode"})
            assert directory.fetch("a", timeout=1).metadata == b"metadata"
            assert directory.names(timeout=1) == ["a", "left"]
            assert directory.presence("a", timeout=1) is not None
            with pytest.raises(AgentNotFoundError):
                directory.fetch("b", timeout=0)
            other.transact(Transaction((), (Delete(str(MetadataKey(bounded, "a", "part"))),)), timeout=1)
            eventually(lambda: other.get(str(MetadataKey(bounded, "a", "part")), timeout=1)[0])
            first.withdraw(label="part")
            with directory.open_publisher("a", incarnation=TWO, takeover=True) as second:
                second.publish(b"new")
                second.withdraw()
            heir.publish(b"heir")
        first.close()
        boundary = f"{places(bounded)[0]}/"
        assert {key for key in recorder.named if not key.startswith(boundary)} == set()
        assert len(recorder.named) > 10
        kept = [entry for entry in other.list("/", timeout=1).entries if entry.value == b"theirs"]
        assert sorted(entry.key for entry in kept) == sorted(OUTSIDE)
        assert other.get(deeper.key, timeout=1)[0] is not None
