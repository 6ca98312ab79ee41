"""Rights that are taken away, and given back, while an agent runs."""

from __future__ import annotations

import re
import threading
import uuid
from typing import TYPE_CHECKING

import pytest
from tests.integration.security.conftest import PASSWORD, Guarded

from trunkline.directory import Directory
from trunkline.directory.event import DirectoryEvent, PeerJoined, PeerUpdated, StoreBack, StoreLost, Synced
from trunkline.directory.sharing import close_all
from trunkline.errors import StoreAuthError
from trunkline.testing.proxy import TcpProxy
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trunkline.directory import DirectoryWatch

ONE = "1" * 32
T = 30.0


@pytest.fixture(autouse=True)
def no_observer_stays() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def proxy(guarded: Guarded) -> Iterator[TcpProxy]:
    with TcpProxy(guarded.server.port) as proxy:
        yield proxy


def wait_event(watch: DirectoryWatch, is_wanted: Callable[[DirectoryEvent], bool]) -> DirectoryEvent:
    """Return the first event of which that holds."""
    while True:
        event = watch.next(T)
        assert event is not None
        if is_wanted(event):
            return event


class User:
    """Takes from a user what it has, and gives it back, in two ways."""

    def __init__(self, guarded: Guarded, how: str) -> None:
        self._guarded = guarded
        self._how = how

    def take(self) -> None:
        if self._how == "role":
            self._guarded.control("user", "revoke-role", "agent", "trunkline/prod/agent")
        else:
            self._guarded.control("user", "delete", "agent")

    def give_back(self) -> None:
        if self._how == "user":
            self._guarded.control("user", "add", f"agent:{PASSWORD}")
        self._guarded.control("user", "grant-role", "agent", "trunkline/prod/agent")


@pytest.mark.parametrize("how", ["role", "user"])
def test_publisher_and_watch_say_so_and_go_on_when_it_is_given_back(
    guarded: Guarded, proxy: TcpProxy, how: str
) -> None:
    name = f"a-{uuid.uuid4().hex}"
    words = "permission denied" if how == "role" else "authentication failed|invalid auth token"
    user = User(guarded, how)
    with (
        guarded.open("agent", proxy.endpoint) as store,
        guarded.open("operator") as operator,
        Directory(store, namespace="/prod").watch(f"{name}*") as watch,
    ):
        directory = Directory(store, namespace="/prod")
        publisher = directory.open_publisher(name, incarnation=ONE, ttl=2, timeout=T)
        publisher.publish(b"one", timeout=T)
        joined = wait_event(watch, lambda event: isinstance(event, PeerJoined))
        assert isinstance(joined, PeerJoined)
        user.take()
        try:
            with pytest.raises(StoreAuthError, match=words):
                publisher.publish(b"two", timeout=T)
            with pytest.raises(StoreAuthError, match=words):
                directory.fetch(name, timeout=T)
            assert publisher.lost is None  # its keys are there, and etcd goes on to refresh their lease
            proxy.cut()  # a watch that is open stays so, whatever becomes of the right: the next one is refused
            proxy.mend()
            wait_event(watch, lambda event: isinstance(event, StoreLost) and bool(re.search(words, event.reason)))
            entry, _ = operator.get(f"/prod/{name}/metadata", timeout=T)
            assert entry is not None
            operator.revoke(entry.lease, timeout=T)
            if how == "role":  # without a user nobody can be asked whether the lease is there
                eventually(lambda: publisher.lost is not None and "not back yet" in publisher.lost, timeout=T)
        finally:
            user.give_back()
        wait_event(watch, lambda event: isinstance(event, StoreBack))
        eventually(lambda: publisher.lost is None, timeout=T)
        publisher.publish(b"three", timeout=T)
        wait_event(
            watch,
            lambda event: isinstance(event, (PeerJoined, PeerUpdated)) and event.agent.labels != joined.agent.labels,
        )
        assert directory.fetch(name, timeout=T).metadata == b"three"
        publisher.close()


def test_tokens_run_out_under_traffic_and_nobody_notices(guarded: Guarded) -> None:
    """Puts, a watch and the refreshing of a lease go on over several lives of a token (they last 1 to 2 s here)."""
    name = f"a-{uuid.uuid4().hex}"
    pause = threading.Event()
    with (
        guarded.open("agent") as store,
        Directory(store, namespace="/prod").watch(name) as watch,
        Directory(store, namespace="/prod").open_publisher(name, incarnation=ONE, ttl=2, timeout=T) as publisher,
    ):
        for number in range(9):
            publisher.publish(b"%d" % number, timeout=T)
            pause.wait(0.4)  # the server's clock decides
        seen = [event for event in iter(lambda: watch.next(0), None) if not isinstance(event, Synced)]
        assert [type(event) for event in seen] == [PeerJoined] + [PeerUpdated] * 8
        assert publisher.sessions == 1
