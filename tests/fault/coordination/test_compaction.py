"""etcd's history is compacted while a worker is cut off: it must go on from a listing."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from tests.fault.etcd.conftest import connect
from tests.workers import Workers

from trunkline.store import open_store
from trunkline.testing.proxy import TcpProxy

if TYPE_CHECKING:
    from trunkline.coordination import Group
    from trunkline.testing.etcd import EtcdServer


def test_what_a_worker_missed_while_history_was_compacted_reaches_it(server: EtcdServer) -> None:
    name = uuid.uuid4().hex
    with (
        TcpProxy(server.port) as proxy,
        connect(server.endpoint) as etcd,
        open_store(server.endpoint) as watcher,
    ):

        def until_arrived(key: str) -> None:
            with watcher.watch(key) as watch:
                while watcher.get(key, timeout=30)[0] is None:
                    assert watch.next(30) is not None

        def lead(group: Group) -> Any:
            until_arrived(group._link.key.arrival(0, 0b111, 2))
            proxy.cut()
            found = group.allgather(group.rank)
            group.send(2, b"sent while you were away")
            group.barrier(ranks=[0, 1])  # whose keys are written over what the other missed
            etcd.compact(watcher.list("/trunkline/", timeout=30).revision, timeout=30)
            proxy.mend()
            return found, group.allgather(-group.rank)

        def follow(group: Group) -> Any:
            found = group.allgather(group.rank)
            group.barrier(ranks=[0, 1])
            return found, group.allgather(-group.rank)

        def be_cut_off(group: Group) -> Any:
            found = group.allgather(group.rank)
            assert group.recv(0) == b"sent while you were away"
            return found, group.allgather(-group.rank)

        there = Workers(lambda: open_store(server.endpoint), name, ttl=30)
        cut_off = Workers(lambda: open_store(proxy.endpoint), name, ttl=30)
        others = there.start(lead, follow, size=3)
        wait = cut_off.start(be_cut_off, size=3, first=2)
        assert [*others(), *wait()] == [([0, 1, 2], [0, -1, -2])] * 3
        assert watcher.list("/trunkline/", timeout=30).entries == ()
