"""A process that forks with a client open."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest
from tests.fault.etcd.conftest import PREFIX, Reader, connect, put_patiently

from trunkline.errors import ForkedError
from trunkline.store.plugins.etcd import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.testing.etcd import EtcdServer

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def in_child(work: Callable[[], str]) -> str:
    """Run ``work`` in a forked child and return what it says, within 20 seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, work().encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        os._exit(0)
    os.close(writing)
    try:
        assert select.select([reading], [], [], 20)[0], "the child hangs"
        return os.read(reading, 65536).decode()
    finally:
        os.close(reading)
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_the_child_is_told_and_the_parent_goes_on(server: EtcdServer) -> None:
    with connect(server.endpoint) as client, Reader(client) as reader:
        lease = client.grant(2, timeout=10)
        watch = client.watch(PREFIX)

        def use_everything() -> str:
            calls: list[Callable[[], object]] = [
                lambda: client.range(PREFIX, timeout=10),
                lambda: client.grant(2, timeout=10),
                lambda: client.watch(PREFIX),
                lambda: watch.next(None),
                lease.close,
                lease.orphan,
            ]
            for number, call in enumerate(calls):
                try:
                    call()
                except ForkedError:
                    continue
                return f"call {number} did not raise"
            watch.close()
            client.close()
            return "told"

        assert in_child(use_everything) == "told"
        put_patiently(client, 1)
        reader.wait_for(lambda: reader.has_keys(range(1, 2)))
        assert client.time_to_live(lease.id, timeout=10) is not None
        assert not lease.is_lost
        watch.close()


def test_a_store_in_the_child(server: EtcdServer) -> None:
    with open_store(server.endpoint) as store:
        store.get("k", timeout=10)

        def use_and_close() -> str:
            try:
                store.get("k", timeout=10)
            except ForkedError:
                store.close()
                return "told"
            return "not told"

        assert in_child(use_and_close) == "told"
        assert store.get("k", timeout=10)[1]
