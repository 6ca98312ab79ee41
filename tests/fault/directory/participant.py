"""The other process of the fault tests: publishers and a watch of the directory, which do what standard input says.

Arguments: endpoint, namespace. Every line of input is a JSON object: ``do`` names a method of Participant, the rest are
its arguments. Every answer is one line of JSON. The first line, before any input, says that the watch is open.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.directory import Directory
from trunkline.directory.event import (
    NameConflict,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreBack,
    StoreLost,
    Synced,
)
from trunkline.errors import ClosedError, TrunklineError
from trunkline.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.directory.event import DirectoryEvent
    from trunkline.directory.publisher import Publisher

TTL = 2.0
STORE_TIMEOUT = 60.0


class Participant:
    """What one process has open.

    Args:
        endpoint: The etcd.
        namespace: The namespace.
    """

    def __init__(self, endpoint: str, namespace: str) -> None:
        _warm_up(endpoint)
        self._resources_before = _resources()
        with ExitStack() as cleanup:
            store = cleanup.enter_context(open_store(endpoint))
            self._directory = Directory(store, namespace=namespace)
            self._observer = cleanup.enter_context(self._directory.observe())
            self._watch = cleanup.enter_context(self._directory.watch())
            self._cleanup = cleanup.pop_all()
        self._publishers: dict[str, Publisher] = {}
        self._events: list[list[str]] = []
        self._listed: dict[str, str] = {}
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="reader")
        self._reader.start()

    def open(self, names: list[str], incarnations: list[str], *, takeover: bool = False, timeout: float = 30.0) -> None:
        """Open publishers."""
        for name, incarnation in zip(names, incarnations, strict=True):
            self._publishers[name] = self._directory.open_publisher(
                name, incarnation=incarnation, ttl=TTL, takeover=takeover, timeout=timeout
            )

    def publish(self, value: str, names: list[str] | None = None, timeout: float = 30.0) -> None:
        """Publish a value under all names, or those given."""
        for name in names or self._publishers:
            self._publishers[name].publish(value.encode(), timeout=timeout)

    def fetch(self, names: list[str], timeout: float = 30.0) -> dict[str, str]:
        """Return what is published under some names."""
        return {name: self._directory.fetch(name, timeout=timeout).metadata.decode() for name in names}

    def expect(self, listed: dict[str, str], timeout: float = 30.0) -> dict[str, dict[str, str]]:
        """Wait until the watch has told of exactly these incarnations and the view holds them; return what differs."""
        with self._news:
            self._news.wait_for(lambda: self._listed == listed and self._view() == listed, timeout)
            told, view = dict(self._listed), self._view()
        differences = {"told": told, "view": view}
        return {source: found for source, found in differences.items() if found != listed}

    def expect_event(self, kind: str, name: str = "", count: int = 1, timeout: float = 30.0) -> int:
        """Wait until there were that many events of a kind (and of a name); return how many there were."""

        def matching() -> int:
            return sum(event[0] == kind and name in ("", event[1]) for event in self._events)

        with self._news:
            self._news.wait_for(lambda: matching() >= count, timeout)
            return matching()

    def events(self) -> list[list[str]]:
        """Return everything that the watch told."""
        with self._news:
            return list(self._events)

    def states(self) -> dict[str, dict[str, Any]]:
        """Return how the publishers are."""
        return {
            name: {"lost": each.lost, "is_superseded": each.is_superseded, "sessions": each.sessions}
            for name, each in self._publishers.items()
        }

    def age(self) -> float:
        """Return how old the view is."""
        return self._observer.view().age

    def hold_interpreter(self, seconds: float) -> None:
        """Let no Python thread of this process run, as a C extension does that keeps the interpreter's lock."""
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))

    def withdraw(self, names: list[str]) -> None:
        """Take back what was published under some names, and keep them."""
        for name in names:
            self._publishers[name].withdraw()

    def close(self) -> list[str]:
        """Close everything; return what of threads and descriptors is left that was not there at the start."""
        for publisher in self._publishers.values():
            publisher.close()
        self._cleanup.close()
        self._reader.join()
        # gRPC ends its threads, and closes what they wait on, a moment after the channel.
        end = time.monotonic() + 20
        while (left := _left_over(self._resources_before, _resources())) and time.monotonic() < end:
            time.sleep(0.02)
        return left

    def _view(self) -> dict[str, str]:
        view = self._observer.view()
        return {name: agent.incarnation for name, agent in view.items() if not agent.is_suspect}

    def _read(self) -> None:
        while True:
            try:
                event = self._watch.next()
            except ClosedError:
                return
            if event is not None:
                with self._news:
                    self._take(event)
                    self._news.notify_all()

    def _take(self, event: DirectoryEvent) -> None:
        self._events.append(_describe(event))
        if isinstance(event, (PeerJoined, PeerUpdated)):
            self._listed[event.name] = event.agent.incarnation
        elif isinstance(event, (PeerLeft, PeerSuspect)):
            self._listed.pop(event.name, None)


def _describe(event: DirectoryEvent) -> list[str]:
    """Return kind, name, incarnation and reason."""
    match event:
        case PeerJoined(agent):
            return ["joined", agent.name, agent.incarnation, ""]
        case PeerUpdated(agent, label):
            return ["updated", agent.name, agent.incarnation, label or ""]
        case PeerSuspect(agent):
            return ["suspect", agent.name, agent.incarnation, ""]
        case PeerLeft(agent, reason):
            return ["left", agent.name, agent.incarnation, reason]
        case NameConflict(name, key, is_lost):
            return ["lost" if is_lost else "conflict", name, "", key]
        case StoreLost(reason):
            return ["store lost", "", "", reason]
        case StoreBack():
            return ["store back", "", "", ""]
        case Synced():
            return ["synced", "", "", ""]


def _warm_up(endpoint: str) -> None:
    """Have gRPC open what it keeps for the process's life, so that it does not count as left over."""
    for _ in range(2):
        with open_store(endpoint) as store, store.watch("/") as watch:
            store.get("/", timeout=STORE_TIMEOUT)
            store.grant(TTL, timeout=STORE_TIMEOUT).close(STORE_TIMEOUT)
            watch.next(STORE_TIMEOUT)


def _resources() -> dict[str, int]:
    """Count this process's threads by name and its descriptors by what they lead to."""
    found: dict[str, int] = {}
    names = [f"thread {thread.name}" for thread in threading.enumerate()]
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:  # the one that listed the folder
            continue
        names.append(target.partition(":")[0] if target.startswith(("socket:", "pipe:")) else target)
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found


def _left_over(before: dict[str, int], now: dict[str, int]) -> list[str]:
    return [f"{count - before.get(name, 0)} {name}" for name, count in now.items() if count > before.get(name, 0)]


def _answer(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": work()}
    except TrunklineError as error:
        return {"error": type(error).__name__, "retryable": error.retryable, "text": str(error)}


def main() -> None:
    participant = Participant(*sys.argv[1:])
    print(json.dumps({"value": None}), flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        method = getattr(participant, arguments.pop("do"))
        print(json.dumps(_answer(lambda: method(**arguments))), flush=True)  # noqa: B023 - called at once


if __name__ == "__main__":
    main()
