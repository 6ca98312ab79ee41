"""The exchange of metadata: how long it takes to register memory, to publish it, and until a peer has loaded it.

Rank 0 registers and publishes again and again; rank 1 waits for it each time, loads it, and says so by a notification.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from trunkline.bench.plan import plan_steps
from trunkline.bench.result import Row
from trunkline.bench.roles import assign_roles
from trunkline.bench.statistics import Readings, mean, percentile
from trunkline.bench.team import Link, decode_introductions, decode_one, introduce
from trunkline.errors import UnknownPeerError
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.agent.agent import Agent
    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.options import Options
    from trunkline.bench.plan import Step
    from trunkline.bench.worker import Listener

_now = time.perf_counter_ns

PUBLISHER = "bench-publisher"

_READINGS = msgspec.msgpack.Decoder(Readings)


class MetadataWorker:
    """One of the two workers. Not for several threads at once.

    Args:
        group: Both.
        options: What is to be done: ``batch`` memory regions of ``block`` bytes each.
        open_agent: Opens this worker's agent by its name.
        listener: Who is told how it goes.
    """

    def __init__(
        self, group: Coordinator, options: Options, open_agent: Callable[[str], Agent], listener: Listener
    ) -> None:
        self._group = group
        self._options = options
        self._open_agent = open_agent
        self._listener = listener
        self._is_publisher = group.rank == 0

    def run(self) -> None:
        """Do all of it.

        Raises:
            TrunklineError: The other worker was lost, or a store or backend failed.
        """
        options = self._options
        introductions = decode_introductions(self._group.allgather(introduce(self._group.rank, options)))
        with self._open_agent(PUBLISHER if self._is_publisher else "bench-loader") as agent:
            roles = assign_roles(options)
            links = [Link(0, 1, "metadata through the store")]
            self._listener.introduced(self._group.rank, introductions, roles, links)
            steps = plan_steps(options)
            for step in steps:
                self._listener.stepping(step, len(steps))
                if self._is_publisher:
                    self._publish(agent, step)
                else:
                    self._load(agent, step)

    def _publish(self, agent: Agent, step: Step) -> None:
        memory = np.ones(step.transfer_size, np.uint8)
        starts = memory.ctypes.data + np.arange(step.batch_size) * step.block_size
        rows = np.stack([starts, np.full_like(starts, step.block_size), np.zeros_like(starts)], axis=1)
        regions = DescriptorList.of(MemoryKind.DRAM, rows)
        times: dict[str, list[int]] = {name: [] for name in ("REGISTER", "ENCODE", "PUBLISH", "EXCHANGE")}
        data = b""
        for number in range(step.warmup + step.iterations):
            self._group.barrier()  # the other one has forgotten the last time
            began = _now()
            agent.register(regions)
            registered = _now()
            data = agent.local_metadata()
            encoded = _now()
            agent.publish()
            published = _now()
            agent.wait_notification(timeout=self._options.timeout)
            loaded = _now()
            self._group.barrier()
            agent.withdraw()
            agent.deregister(regions, drain=0)
            if number >= step.warmup:
                times["REGISTER"].append(registered - began)
                times["ENCODE"].append(encoded - registered)
                times["PUBLISH"].append(published - encoded)
                times["EXCHANGE"].append(loaded - encoded)
        self._group.allgather(data)
        found = self._group.gather(b"")
        assert found is not None
        readings = {name: Readings.of(np.array(those, np.int64)) for name, those in times.items()}
        readings["LOAD"] = decode_one(_READINGS, found[1], 1, "readings")
        for name, those in readings.items():
            self._listener.measured(self._row(step, name, len(data), those))

    def _load(self, agent: Agent, step: Step) -> None:
        timeout = self._options.timeout
        for _ in range(step.warmup + step.iterations):
            self._group.barrier()
            peer = agent.fetch(PUBLISHER, timeout=timeout)
            agent.notify(peer, b"loaded")
            self._group.barrier()  # unloaded before it has arrived, the notification would be lost
            with suppress(UnknownPeerError):  # it has withdrawn already
                agent.unload_peer(PUBLISHER)
        data = self._group.allgather(b"")[0]
        times = []
        for _ in range(step.iterations):
            began = _now()
            peer = agent.load_peer(data)
            times.append(_now() - began)
            agent.unload_peer(peer.name)
        self._group.gather(msgspec.msgpack.encode(Readings.of(np.array(times, np.int64))))

    def _row(self, step: Step, name: str, size: int, readings: Readings) -> Row:
        those = [readings]
        average = mean(those) or 0.0
        return Row(
            engine="trunkline",
            backend=self._options.backend,
            transport="etcd" if name in ("PUBLISH", "EXCHANGE") else "none",
            op_type=name,
            scheme="pairwise",
            mode="SG",
            initiator_seg_type="DRAM",
            target_seg_type="DRAM",
            pairs=1,
            num_threads=1,
            pipeline_depth=1,
            block_size=step.block_size,
            batch_size=step.batch_size,
            iterations=readings.count,
            bandwidth_gb_s=size / max(average, 1e-9) / 1e3,
            latency_avg_us=average,
            latency_p50_us=percentile(those, 50),
            latency_p90_us=percentile(those, 90),
            latency_p99_us=percentile(those, 99),
            latency_p99_9_us=percentile(those, 99.9),
        )
