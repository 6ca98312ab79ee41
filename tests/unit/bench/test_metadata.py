"""The exchange of metadata between workers that are threads, by engines that hand it over in this process."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.unit.bench.kv.ranks import Threads, run_ranks
from tests.unit.bench.workers import Recorder

from trunkline.bench.metadata import MetadataWorker, _compare
from trunkline.bench.options import KIB, Options
from trunkline.bench.plan import Step
from trunkline.bench.statistics import Readings
from trunkline.errors import DeadlineError

if TYPE_CHECKING:
    from trunkline.memory.descriptor import DescriptorList


PUBLISHERS = {"trunkline": "bench-0", "nixl": "bench-2"}


class Exchange:
    """Where engines publish, and what they did."""

    def __init__(self) -> None:
        self.published: dict[str, bytes] = {}
        self.changed = threading.Condition()
        self.inboxes: dict[str, queue.Queue[bytes]] = {}
        self.done: list[tuple[str, str]] = []
        self.engines: list[Engine] = []


class Engine:
    """Does what it is asked, and checks that it may be."""

    def __init__(self, exchange: Exchange, kind: str, name: str, *, is_mute: bool = False) -> None:
        self.is_published_at_once = kind == "trunkline"
        self._exchange, self._kind, self._name = exchange, kind, name
        self._is_mute = is_mute
        self._regions: list[DescriptorList] = []
        self._known: set[str] = set()
        self._is_awake = True
        exchange.inboxes[name] = queue.Queue()
        exchange.engines.append(self)

    def _do(self, what: str) -> None:
        assert self._is_awake
        assert not any(other._is_awake for other in self._exchange.engines if other._kind != self._kind)
        self._exchange.done.append((self._kind, what))

    def register(self, regions: DescriptorList) -> None:
        assert not self._regions
        self._regions.append(regions)

    def deregister(self, regions: DescriptorList) -> None:
        assert self._name not in self._exchange.published
        self._regions.remove(regions)

    def encode(self) -> bytes:
        (regions,) = self._regions
        return b"x" * regions.count

    def publish(self) -> None:
        self._do("publish")
        with self._exchange.changed:
            self._exchange.published[self._name] = self.encode()
            self._exchange.changed.notify_all()

    def withdraw(self) -> None:
        with self._exchange.changed:
            del self._exchange.published[self._name]
            self._exchange.changed.notify_all()

    def fetch(self, name: str, timeout: float) -> None:
        self._do("fetch")
        assert name not in self._known
        with self._exchange.changed:
            assert self._exchange.changed.wait_for(lambda: name in self._exchange.published, timeout)
        self._known.add(name)

    def forget(self, name: str) -> None:
        with self._exchange.changed:
            assert self._exchange.changed.wait_for(lambda: name not in self._exchange.published, 30)
        self._known.remove(name)

    def load(self, data: bytes) -> None:
        self._do("load")
        assert set(data) == set(b"x")
        self._known.add(PUBLISHERS[self._kind])

    def unload(self, name: str) -> None:
        self._known.remove(name)

    def notify(self, peer: str, payload: bytes) -> None:
        assert peer in self._known
        if not self._is_mute:
            self._exchange.inboxes[peer].put(payload)

    def wait_notification(self, timeout: float) -> bytes:
        try:
            return self._exchange.inboxes[self._name].get(timeout=timeout)
        except queue.Empty:
            raise DeadlineError("nothing came") from None

    def rest(self) -> None:
        self._is_awake = False

    def wake(self) -> None:
        self._is_awake = True

    def close(self) -> None:
        assert self._is_mute or not (self._known or self._regions)


def run(exchange: Exchange, *, is_mute: bool = False, **changes: Any) -> Recorder:
    options = Options(
        workload="metadata", start_block_size=4 * KIB, max_block_size=4 * KIB, start_batch_size=2, max_batch_size=4,
        num_iter=10, warmup_iter=3, **changes,
    )  # fmt: skip

    def work(group: Threads) -> Recorder:
        found = Recorder()
        MetadataWorker(group, options, lambda kind, name: Engine(exchange, kind, name, is_mute=is_mute), found).run()
        return found

    ranks = [tuple(range(first, first + 2)) for first in range(0, options.size, 2)]
    first, *others = run_ranks(options.size, work, subsets=ranks)
    assert all(not each.rows for each in others)
    recorder: Recorder = first
    return recorder


def test_an_engine_alone() -> None:
    exchange = Exchange()
    found = run(exchange)
    parts = ["REGISTER", "ENCODE", "PUBLISH", "EXCHANGE", "LOAD"]
    assert [(row.op_type, row.batch_size) for row in found.rows] == [
        (part, count) for count in (2, 4) for part in parts
    ]
    for row in found.rows:
        assert (row.engine, row.iterations) == ("trunkline", 10)
        assert row.bandwidth_gb_s == pytest.approx(row.batch_size / row.latency_avg_us / 1e3)
        assert row.latency_p50_us is not None
    assert found.warnings == []
    counts = {what: exchange.done.count(("trunkline", what)) for what in ("publish", "fetch", "load")}
    assert counts == {"publish": 26, "fetch": 26, "load": 20}


def test_two_engines_in_turn() -> None:
    exchange = Exchange()
    found = run(exchange, engine="both")
    assert [(row.engine, row.op_type) for row in found.rows if row.batch_size == 2] == [
        *(("trunkline", part) for part in ("REGISTER", "ENCODE", "PUBLISH", "EXCHANGE", "LOAD")),
        *(("nixl", part) for part in ("REGISTER", "ENCODE", "EXCHANGE", "LOAD")),
    ]
    assert {row.iterations for row in found.rows} == {10}
    turns = [kind for kind, what in exchange.done if what == "publish"][: 2 * (3 + 10)]
    assert turns == ["trunkline"] * 5 + ["nixl"] * 5 + (["trunkline"] * 2 + ["nixl"] * 2) * 4
    first, second = found.warnings
    assert first.startswith("2 regions of 4,096 B: median time of trunkline / nixl: REGISTER ")
    assert "PUBLISH" not in first
    assert second.endswith("(median of 5 rounds in turn, least to greatest)")


def test_times_are_compared_round_by_round() -> None:
    ours, theirs = (
        {"EXCHANGE": [Readings.of(np.array([each] * 3)) for each in those]}
        for those in ([1000, 3000, 2000], [4000] * 3)
    )
    found = _compare(Step(0, KIB, 1, 3, 0), ["trunkline", "nixl"], [{**ours, "PUBLISH": ours["EXCHANGE"]}, theirs])
    assert found == (
        "1 region of 1,024 B: median time of trunkline / nixl: EXCHANGE 0.50 (0.25 to 0.75) (median of 3 rounds in "
        "turn, least to greatest)"
    )


def test_a_notification_that_does_not_come_ends_the_run() -> None:
    with pytest.raises(DeadlineError, match="nothing came"):
        run(Exchange(), is_mute=True, timeout=0.05)
