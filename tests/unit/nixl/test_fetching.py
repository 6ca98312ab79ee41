"""Fetches in the background, without a store."""

from __future__ import annotations

import threading

import pytest

from trunkline.errors import AgentNotFoundError
from trunkline.exchange.address import Address
from trunkline.nixl.fetching import Fetching
from trunkline.testing.waiting import eventually

PROMPT = 10.0


class Store:
    """Agents that can be fetched once they are let in; those on the list of the missing can't."""

    def __init__(self) -> None:
        self.fetched: list[tuple[str, str | Address]] = []
        self.gates: dict[str, threading.Event] = {}
        self.missing: set[str] = set()
        self.entered = threading.Event()

    def fetch(self, name: str, source: str | Address) -> None:
        self.entered.set()
        if name in self.gates:
            assert self.gates[name].wait(PROMPT)
        self.fetched.append((name, source))
        if name in self.missing:
            raise AgentNotFoundError(f"{name} {source}")


@pytest.fixture
def store() -> Store:
    return Store()


def test_one_name_waits_for_no_other_and_its_labels_come_in_order(store: Store) -> None:
    store.gates["slow"] = threading.Event()
    fetching = Fetching(store.fetch)
    where = Address("host", 1)
    for source in ("conn", where, "conn"):  # the last is under way already
        fetching.start("slow", source)
    fetching.start("quick", "metadata")
    eventually(lambda: store.fetched == [("quick", "metadata")], timeout=PROMPT)
    store.gates["slow"].set()
    eventually(lambda: len(store.fetched) == 3, timeout=PROMPT)
    assert store.fetched[1:] == [("slow", "conn"), ("slow", where)]
    fetching.stop()
    fetching.join()


def test_a_failure_is_told_once_and_forgotten_by_the_next_fetch(store: Store) -> None:
    store.missing.add("gone")
    fetching = Fetching(store.fetch)
    assert fetching.take_failure("gone") is None
    fetching.start("gone", "metadata")
    eventually(lambda: bool(fetching._failures), timeout=PROMPT)
    assert isinstance(fetching.take_failure("gone"), AgentNotFoundError)
    assert fetching.take_failure("gone") is None
    fetching.start("gone", "metadata")
    eventually(lambda: bool(fetching._failures), timeout=PROMPT)
    store.gates["gone"] = threading.Event()
    fetching.start("gone", "metadata")
    assert fetching.take_failure("gone") is None
    store.gates["gone"].set()
    fetching.stop()
    fetching.join()


def test_stopped_it_starts_nothing_and_tells_nothing(store: Store) -> None:
    store.gates["slow"] = threading.Event()
    store.missing.add("slow")
    fetching = Fetching(store.fetch)
    for label in ("one", "two"):
        fetching.start("slow", label)
    assert store.entered.wait(PROMPT)
    fetching.stop()
    store.gates["slow"].set()
    fetching.join()
    fetching.start("other", "metadata")
    assert store.fetched == [("slow", "one")]
    assert fetching.take_failure("slow") is None
