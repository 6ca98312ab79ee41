"""Many agents in one etcd: ``python -m benchmarks.fleet [--agents N …]``; JSON lines on stdout.

Agents are publishers without data path, some hundred in each of a few processes, of which each watches everybody. NIXL
has nothing to compare: it can't list, and its keys have no lease.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figure import Figure, heading
from benchmarks.place import default_place
from benchmarks.probe import resident
from benchmarks.process import Process
from trunkline.directory.directory import Directory
from trunkline.directory.event import PeerJoined, PeerLeft, PeerSuspect, Synced
from trunkline.errors import ClosedError
from trunkline.etcd.server import EtcdServer
from trunkline.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.directory.publisher import Publisher
    from trunkline.directory.watch import DirectoryWatch

NAMESPACE = "/fleet"
METADATA = bytes(1024)
PATIENCE = 110.0
"""Seconds in which everybody has to be seen."""


class Member:
    """A process with some agents of the fleet, and one watch of all of them."""

    def __init__(self, store: str, namespace: str) -> None:
        self._cleanup = contextlib.ExitStack()
        self._directory = Directory(self._cleanup.enter_context(open_store(store)), namespace=namespace)
        self._publishers: list[Publisher] = []
        self._present: set[str] = set()
        self._gone = Counter[str]()
        self._changed = threading.Condition()
        watch = self._cleanup.enter_context(self._directory.watch())
        self._reader = threading.Thread(target=self._read, args=(watch,), daemon=True)
        self._reader.start()

    def _read(self, watch: DirectoryWatch) -> None:
        for event in watch:
            with self._changed:
                if isinstance(event, PeerJoined):
                    self._present.add(event.name)
                elif isinstance(event, (PeerLeft, PeerSuspect)):
                    self._present.discard(event.name)
                    self._gone[event.name] += 1
                self._changed.notify_all()

    def join(self, names: list[str], ttl: float) -> tuple[float, float]:
        """Claim names and publish under each, one after the other; return when that began and ended."""
        began = time.monotonic()
        for name in names:
            publisher = self._directory.open_publisher(name, incarnation=uuid.uuid4().hex, ttl=ttl)
            self._publishers.append(publisher)
            publisher.publish(METADATA)
        return began, time.monotonic()

    def wait_present(self, count: int) -> float:
        """Wait until so many agents were seen; return when that was."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._present) >= count, PATIENCE):
                raise TimeoutError(f"{len(self._present)} of {count} agents were seen in {PATIENCE:g} s")
        return time.monotonic()

    def busy(self) -> float:
        """Return the seconds of processor time that this process has taken."""
        return time.process_time()

    def losses(self) -> tuple[int, int]:
        """Return how many of its agents lost a lease, and how many departures it saw."""
        lost = sum(publisher.sessions != 1 or publisher.lost is not None for publisher in self._publishers)
        return lost, self._gone.total()

    def close(self) -> None:
        for publisher in self._publishers:
            with contextlib.suppress(ClosedError):
                publisher.close()
        self._cleanup.close()


@dataclass(frozen=True, slots=True)
class Listing:
    """What it took a newcomer to learn who is there.

    Attributes:
        memory: Resident MB of its process afterwards.
        opening: Seconds from the call to the first agent.
        listing: Seconds from the first agent to ``Synced``.
        agents: How many were told of.
    """

    memory: float
    opening: float
    listing: float
    agents: int


class Watcher:
    """A process that does nothing but watch."""

    def __init__(self, store: str, namespace: str) -> None:
        self._cleanup = contextlib.ExitStack()
        self._directory = Directory(self._cleanup.enter_context(open_store(store)), namespace=namespace)

    def watch(self) -> Listing:
        began = first = time.monotonic()
        watch = self._cleanup.enter_context(self._directory.watch())
        agents = 0
        while not isinstance(event := watch.next(PATIENCE), Synced):
            if event is None:
                raise TimeoutError(f"{agents} agents were told of in {PATIENCE:g} s, and no end")
            if not agents:
                first = time.monotonic()
            agents += isinstance(event, PeerJoined)
        synced = time.monotonic()
        return Listing(resident(), first - began, synced - first, agents)

    def close(self) -> None:
        self._cleanup.close()


@dataclass(frozen=True, slots=True)
class Account:
    """What an etcd has done so far, by its own counters.

    Attributes:
        revision: Of its data.
        proposals: Writes that its members agreed on: transactions and leases.
        messages: Messages it received, by method.
        streams: Streams that are open, by method.
        watchers: Watches on these.
        busy: Seconds of processor time.
    """

    revision: float
    proposals: float
    messages: dict[str, float]
    streams: dict[str, float]
    watchers: float
    busy: float

    @classmethod
    def of(cls, endpoint: str) -> Account:
        with urllib.request.urlopen(f"http://{endpoint.partition('://')[2]}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        values = dict(re.findall(r"^([^#\n].*) (\S+)$", text, re.MULTILINE))

        def of_methods(name: str) -> Counter[str]:
            counts = Counter[str]()
            for key, value in values.items():
                method = re.match(rf'{name}{{.*grpc_method="(\w+)"', key)
                if method:
                    counts[method[1]] += int(float(value))
            return counts

        ended = of_methods("grpc_server_handled_total")
        started = of_methods("grpc_server_started_total")
        return cls(
            revision=float(values["etcd_debugging_mvcc_current_revision"]),
            proposals=float(values["etcd_server_proposals_committed_total"]),
            messages=dict(of_methods("grpc_server_msg_received_total")),
            streams={method: started[method] - ended[method] for method in started if started[method] > ended[method]},
            watchers=float(values["etcd_debugging_mvcc_watcher_total"]),
            busy=float(values["process_cpu_seconds_total"]),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What a fleet took.

    Attributes:
        joining: Seconds from the first claim until every process had seen every agent published.
        joining_busy: Seconds of processor time that all processes together took for it.
        writing: Seconds until the last publication had returned.
        before: etcd's account before it.
        joined: etcd's account when all had joined.
        idle: etcd's account after the idle time.
        seconds: That time.
        busy: Seconds of processor time that all processes together took in it.
        lost: How many leases were lost.
        departures: How many departures were seen, by all processes.
        listing: What a newcomer took to learn of all.
    """

    joining: float
    joining_busy: float
    writing: float
    before: Account
    joined: Account
    idle: Account
    seconds: float
    busy: float
    lost: int
    departures: int
    listing: Listing


def run(endpoint: str, agents: int, *, processes: int, ttl: float, idle: float) -> Result:
    """Let agents join from several processes at once, leave them alone, and let a newcomer list them."""
    with contextlib.ExitStack() as cleanup:
        namespace = f"{NAMESPACE}/{uuid.uuid4().hex}"
        members = [cleanup.enter_context(Process(Member, endpoint, namespace)) for _ in range(processes)]
        before = Account.of(endpoint)
        before_joining = sum(member.call("busy") for member in members)
        for number, member in enumerate(members):
            member.start("join", [f"agent-{each}" for each in range(number, agents, processes)], ttl)
        times = [member.result() for member in members]
        began = min(began for began, _ in times)
        for member in members:
            member.start("wait_present", agents)
        seen = max(member.result() for member in members)
        time.sleep(1.0)  # what joining brings about is over
        joined = Account.of(endpoint)
        before_idle = sum(member.call("busy") for member in members)
        since = time.monotonic()
        time.sleep(idle)
        seconds = time.monotonic() - since
        busy = sum(member.call("busy") for member in members) - before_idle
        idle_account = Account.of(endpoint)
        losses = [member.call("losses") for member in members]
        with Process(Watcher, endpoint, namespace) as watcher:
            listing = watcher.call("watch")
        return Result(
            joining=seen - began,
            joining_busy=before_idle - before_joining,
            writing=max(ended for _, ended in times) - began,
            before=before,
            joined=joined,
            idle=idle_account,
            seconds=seconds,
            busy=busy,
            lost=sum(lost for lost, _ in losses),
            departures=sum(departures for _, departures in losses),
            listing=listing,
        )


def figures(result: Result, agents: int, processes: int, ttl: float) -> Iterator[Figure]:
    """Put a result into figures."""

    def figure(name: str, unit: str, value: float, goal: str = "") -> Figure:
        return Figure(f"{agents:,} agents: {name}", unit, goal, [value])

    before, joined, idle = result.before, result.joined, result.idle
    messages = {
        method: count - joined.messages.get(method, 0)
        for method, count in idle.messages.items()
        if count > joined.messages.get(method, 0)
    }
    sent = sum(joined.messages.values()) - sum(before.messages.values())
    yield figure("joined, all see all", "s", result.joining, "≤ 60 for 1,000")
    yield figure("the last has published", "s", result.writing)
    yield figure("processor time per agent joining", "ms", result.joining_busy / agents * 1e3)
    yield figure("revisions per agent joining", "", (joined.revision - before.revision) / agents)
    yield figure("writes per agent joining, with its lease", "", (joined.proposals - before.proposals) / agents)
    yield figure("messages per agent joining", "", sent / agents)
    per_minute = sum(messages.values()) / agents / result.seconds * 60
    yield figure(f"idle, messages per agent and minute, TTL {ttl:g}", "", per_minute)
    for method, count in sorted(messages.items()):
        yield figure(f"idle, of them {method}", "", count / agents / result.seconds * 60)
    yield figure("idle, writes per minute", "", (idle.proposals - joined.proposals) / result.seconds * 60)
    yield figure("idle, processor time of one process", "%", result.busy / processes / result.seconds * 100)
    yield figure("idle, processor time of etcd", "%", (idle.busy - joined.busy) / result.seconds * 100)
    for method in ("Watch", "LeaseKeepAlive"):
        yield figure(f"open {method} streams per process", "", idle.streams.get(method, 0) / processes)
    yield figure("watches of etcd per agent", "", idle.watchers / agents)
    yield figure(f"lost leases in {result.seconds:.0f} s", "", result.lost, "0")
    yield figure(f"departures seen in {result.seconds:.0f} s", "", result.departures, "0")
    listing = result.listing
    yield figure("a watcher's resident memory", "MB", listing.memory, "< 100 for 1,000")
    yield figure("a watcher, call → first PeerJoined", "ms", listing.opening * 1e3)
    yield figure("a watcher, first PeerJoined → Synced", "ms", listing.listing * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description="Many agents in one etcd")
    parser.add_argument("--agents", type=int, nargs="+", default=[100, 1000], help="sizes of fleets")
    parser.add_argument("--processes", type=int, default=4, help="in how many processes each fleet lives")
    parser.add_argument("--ttl", type=float, default=10.0, help="seconds of its leases")
    parser.add_argument("--idle", type=float, help="seconds it is left alone; by default twice the TTL and a bit")
    options = parser.parse_args()
    print(heading(), file=sys.stderr)
    for agents in options.agents:
        with (
            tempfile.TemporaryDirectory(dir=default_place()) as directory,
            EtcdServer(Path(directory)).start() as server,
        ):
            result = run(
                server.endpoint,
                agents,
                processes=options.processes,
                ttl=options.ttl,
                idle=2.2 * options.ttl if options.idle is None else options.idle,
            )
        for figure in figures(result, agents, options.processes, options.ttl):
            print(figure.json(), flush=True)
            print(figure.row(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
