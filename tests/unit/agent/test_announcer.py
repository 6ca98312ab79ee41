from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.clock import Deadline
from trunkline.directory.event import PeerJoined, StoreLost, Synced
from trunkline.errors import ClosedError, StoreUnavailableError

if TYPE_CHECKING:
    from tests.unit.agent.conftest import Bench


def test_a_new_watch_is_told_how_things_stand(bench: Bench) -> None:
    follower = bench.follower.itself
    bench.prefill()
    told = bench.watch()
    told.until(PeerJoined)
    follower._tell(StoreLost("no route"))
    assert bench.watch().kinds() == [PeerJoined, Synced, StoreLost]
    follower.announcer.fail(StoreUnavailableError("refused"))
    late = bench.decode.watch()
    assert [type(late.next(0)) for _ in range(3)] == [PeerJoined, Synced, StoreLost]
    with pytest.raises(StoreUnavailableError):
        late.next(0)


def test_watches_that_include_nixls_agents_are_synced_once(bench: Bench) -> None:
    told = bench.watch(include_nixl=True)
    bench.follower.itself._tell(Synced())
    assert told.kinds() == [Synced]


def test_closing_ends_watches(bench: Bench) -> None:
    told, nixl = bench.watch(), bench.watch(include_nixl=True)
    follower = bench.follower.itself
    follower.close(Deadline(5))
    follower.close(Deadline(5))
    for each in (told, nixl):
        with pytest.raises(ClosedError):
            each.watch.next()
        each.watch.close()
    with pytest.raises(ClosedError):
        follower.announcer.watch("*", {}, include_nixl=False)
