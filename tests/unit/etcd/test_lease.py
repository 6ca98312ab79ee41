from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from trunkline.errors import StoreAuthError, StoreUnavailableError
from trunkline.etcd.lease import Lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.etcd.lease_keeper import LeaseKeeper


class Keeper:
    """Keeps leases without refreshing them."""

    def __init__(self) -> None:
        self.leases: set[Lease] = set()
        self.revoked: list[tuple[int, float]] = []

    def remove(self, lease: Lease) -> bool:
        was_kept = lease in self.leases
        self.leases.discard(lease)
        return was_kept

    def grant(
        self,
        ttl: float,
        revoke: Callable[[int, float], object] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> Lease:
        lease = Lease(
            len(self.leases) + 1,
            ttl,
            1000.0,
            keeper=cast("LeaseKeeper", self),
            revoke=revoke or (lambda number, timeout: self.revoked.append((number, timeout))),
            on_lost=on_lost,
        )
        self.leases.add(lease)
        return lease


def test_it_is_due_after_a_third_of_its_ttl() -> None:
    lease = Keeper().grant(30)
    assert lease.due_at == 1010
    lease.confirm(1011)
    assert (lease.refreshed_at, lease.due_at) == (1011, 1021)
    assert lease.ready_at == 1020.5


def test_refusals_postpone_it_further_and_further() -> None:
    lease = Keeper().grant(30)
    delays = []
    for _ in range(50):
        lease.postpone(1010)
        delays.append(lease.due_at - 1010)
        assert lease.ready_at == lease.due_at
    assert 0.2 <= delays[0] <= 0.4
    assert 1 < max(delays) <= 2
    lease.confirm(1020)
    lease.postpone(1030)
    assert lease.due_at - 1030 <= 0.4


def test_close_revokes_once_within_the_ttl() -> None:
    keeper = Keeper()
    first, second, third = keeper.grant(30), keeper.grant(30), keeper.grant(30)
    first.close()
    first.close()
    second.close(timeout=4)
    third.close(timeout=99)
    assert keeper.revoked == [(1, 30), (2, 4), (3, 30)]


def test_close_leaves_the_keys_to_the_ttl_when_etcd_is_away() -> None:
    def revoke(_number: int, _timeout: float) -> None:
        raise StoreUnavailableError("gone")

    Keeper().grant(30, revoke).close()


def test_close_says_that_a_right_is_missing() -> None:
    def revoke(_number: int, _timeout: float) -> None:
        raise StoreAuthError("denied")

    with pytest.raises(StoreAuthError):
        Keeper().grant(30, revoke).close()


def test_an_orphan_is_not_revoked() -> None:
    keeper = Keeper()
    lease = keeper.grant(30)
    lease.orphan()
    lease.close()
    assert keeper.leases == set()
    assert keeper.revoked == []


def test_an_owner_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("owner's fault")

    lease = Keeper().grant(3, on_lost=fail)
    lease.lose()
    assert lease.is_lost
    assert "owner's fault" in caplog.text
    assert repr(lease) == "<Lease 1 ttl=3 lost>"
