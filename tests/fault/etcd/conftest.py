"""Servers to break, and a reader that keeps what a watch told it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

import pytest
from tests.fault.versions import every_etcd

from trunkline.errors import StoreUnavailableError
from trunkline.etcd.client import EtcdClient
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.request import prefix_end
from trunkline.etcd.value import Change, Listing
from trunkline.testing.etcd import EtcdServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trunkline.etcd.value import WatchEvent

PREFIX = b"/fault/"


def connect(url: str, **settings: Any) -> EtcdClient:
    return EtcdClient(EtcdConfig.parse(url, environment={}, **settings))


def put_patiently(client: EtcdClient, *numbers: int) -> None:
    """Put the keys of these numbers, each as often as it takes."""
    for number in numbers:
        while True:
            try:
                client.put(PREFIX + b"%d" % number, b"", timeout=5)
            except StoreUnavailableError:
                continue
            break


class Reader:
    """Reads a watch of PREFIX on a thread, and keeps all its events and the keys they speak of."""

    def __init__(self, client: EtcdClient) -> None:
        self._watch = client.watch(PREFIX, prefix_end(PREFIX))
        self.events: list[WatchEvent] = []
        self.keys: set[bytes] = set()
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for event in self._watch:
            with self._news:
                self.events.append(event)
                if isinstance(event, Listing):
                    self.keys |= {entry.key for entry in event.entries}
                elif isinstance(event, Change):
                    self.keys |= {entry.key for entry in event.put}
                self._news.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 60) -> None:
        with self._news:
            assert self._news.wait_for(condition, timeout), self.events[-5:]

    def wait_for_event(self, kind: type, timeout: float = 60) -> None:
        """Wait until the latest event is of this kind."""
        self.wait_for(lambda: bool(self.events) and isinstance(self.events[-1], kind), timeout)

    def wait_for_more(self) -> None:
        """Wait for an event later than now."""
        before = len(self.events)
        self.wait_for(lambda: len(self.events) > before)

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    def has_keys(self, numbers: range) -> bool:
        return self.keys >= {PREFIX + b"%d" % number for number in numbers}

    def __enter__(self) -> Self:
        self.wait_for_event(Listing)
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()
        self._thread.join(30)


@pytest.fixture(params=every_etcd())
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EtcdServer]:
    binary: Path = request.param
    with EtcdServer(tmp_path / "etcd", binary=binary).start() as running:
        yield running
