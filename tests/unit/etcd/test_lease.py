from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from trunkline.errors import ClosedError, StoreAuthError, StoreUnavailableError
from trunkline.etcd.lease import Lease, LeaseKeeper
from trunkline.etcd.messages import LEASE_KEEP_ALIVE
from trunkline.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Server:
    """A connection that answers refreshes with a TTL, or raises."""

    def __init__(self) -> None:
        self.answers: dict[int, int | Exception] = {}
        self.refreshed: list[int] = []
        self.is_closed = False

    def call(self, method: Any, request: Any, **_: Any) -> Any:
        assert method is LEASE_KEEP_ALIVE
        if self.is_closed:
            raise ClosedError("closed")
        self.refreshed.append(request.ID)
        answer = self.answers[request.ID]
        if isinstance(answer, Exception):
            raise answer
        return LEASE_KEEP_ALIVE.response(ID=request.ID, TTL=answer)

    def check_process(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.server = Server()
        self.keeper = LeaseKeeper(cast("Any", self.server), self.clock)
        self.revoked: list[tuple[int, float]] = []
        self.lost: list[int] = []

    def grant(self, number: int, ttl: float, on_lost: Callable[[], None] | None = None) -> Lease:
        self.server.answers[number] = int(ttl)
        lease = Lease(
            number,
            ttl,
            self.clock.monotonic(),
            keeper=self.keeper,
            revoke=lambda number, timeout: self.revoked.append((number, timeout)),
            on_lost=on_lost or (lambda: self.lost.append(number)),
        )
        self.keeper.add(lease)
        self.clock.until_waiting()
        return lease

    def advance(self, seconds: float) -> None:
        """Move on, and let the keeper do what is due."""
        before = len(self.server.refreshed)
        self.clock.advance(seconds)
        for _ in range(500):
            if len(self.server.refreshed) > before:
                break
            threading.Event().wait(0.001)
        self.clock.until_waiting()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.keeper.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "trunkline-etcd-keepalive"]


def test_a_lease_is_refreshed_each_third_of_its_ttl(bench: Bench) -> None:
    lease = bench.grant(1, 30)
    for _ in range(3):
        bench.advance(10)
    assert bench.server.refreshed == [1, 1, 1]
    assert lease.refreshed_at == bench.clock.monotonic()
    assert not lease.is_lost


def test_one_thread_keeps_all_each_at_its_time(bench: Bench) -> None:
    bench.grant(1, 30)
    bench.grant(2, 3)
    for _ in range(9):
        bench.advance(1)
    assert bench.server.refreshed == [2] * 9
    bench.advance(1.001)
    assert bench.server.refreshed.count(1) == 1


def test_an_outage_is_no_loss_however_long(bench: Bench) -> None:
    lease = bench.grant(1, 3)
    refreshed_at = lease.refreshed_at
    bench.server.answers[1] = StoreUnavailableError("gone")
    for _ in range(20):
        bench.advance(2)
    assert not lease.is_lost
    assert lease.refreshed_at == refreshed_at
    bench.server.answers[1] = 3
    bench.advance(2)
    assert lease.refreshed_at == bench.clock.monotonic()


def test_a_missing_right_may_be_given_later(bench: Bench) -> None:
    lease = bench.grant(1, 3)
    bench.server.answers[1] = StoreAuthError("denied")
    bench.advance(1)
    assert not lease.is_lost


def test_the_owner_is_told_once_that_the_lease_is_lost(bench: Bench) -> None:
    lease = bench.grant(1, 3)
    bench.server.answers[1] = 0
    bench.advance(1)
    assert lease.is_lost
    assert bench.lost == [1]
    bench.clock.advance(100)
    bench.clock.until_waiting()
    assert bench.server.refreshed == [1]
    lease.close()
    assert bench.revoked == []


def test_an_owner_that_fails_does_not_harm_the_others(bench: Bench) -> None:
    def fail() -> None:
        raise RuntimeError("owner's fault")

    bench.grant(1, 3, on_lost=fail)
    bench.grant(2, 3)
    bench.server.answers[1] = 0
    bench.advance(1)
    bench.advance(1)
    assert 2 in bench.server.refreshed


def test_close_revokes_once_within_the_ttl(bench: Bench) -> None:
    first, second, third = bench.grant(1, 30), bench.grant(2, 30), bench.grant(3, 30)
    first.close()
    first.close()
    second.close(timeout=4)
    third.close(timeout=99)
    assert bench.revoked == [(1, 30), (2, 4), (3, 30)]
    bench.clock.advance(100)
    bench.clock.until_waiting()
    assert bench.server.refreshed == []


def test_close_leaves_the_keys_to_the_ttl_when_etcd_is_away(bench: Bench) -> None:
    def revoke(_number: int, _timeout: float) -> None:
        raise StoreUnavailableError("gone")

    lease = Lease(1, 30, bench.clock.monotonic(), keeper=bench.keeper, revoke=revoke, on_lost=None)
    bench.keeper.add(lease)
    lease.close()


def test_an_orphan_is_neither_refreshed_nor_revoked(bench: Bench) -> None:
    lease = bench.grant(1, 30)
    lease.orphan()
    lease.close()
    bench.clock.advance(100)
    bench.clock.until_waiting()
    assert bench.server.refreshed == []
    assert bench.revoked == []
