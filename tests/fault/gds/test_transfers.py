"""Through the engine: handles, cancellation, deadlines, memory that is still in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.standin.cufile import VARIANTS, Standin, TemporaryFile

from trunkline.backend.contract import Operation
from trunkline.backend.plugins.gds import GdsBackend, GdsMtBackend
from trunkline.backend.plugins.gds.request import GdsRequest
from trunkline.clock import Deadline
from trunkline.errors import MemoryInUseError, TransferCancelledError, TransferDeadlineError, TransferError
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import bytes_of, segments_of
from trunkline.testing.waiting import PATIENCE, eventually
from trunkline.transfer.engine import Engine
from trunkline.transfer.plan import plan_transfer
from trunkline.transfer.route import Route

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trunkline.transfer.handle import TransferHandle

BLOCKS = np.array([[at, 1024] for at in range(0, 16384, 2048)], np.uint64)


class Bench:
    """An engine with one backend, memory and a file registered."""

    def __init__(self, variant: str, folder: Path) -> None:
        backend = GdsBackend("agent") if variant == "GDS" else GdsMtBackend("agent", thread_count=1)
        self.engine = Engine("agent", [backend], timeout=PATIENCE)
        self.memory, self.file = bytes_of(16384, 1), TemporaryFile(folder, np.zeros(16384, np.uint8))
        self.name, section = backend.name, self.engine.home.section
        segments = segments_of(self.memory)
        self.slots = backend.register(MemoryKind.DRAM, segments)
        section.add(backend.name, MemoryKind.DRAM, segments, self.slots)
        segments = np.array([[0, 16384, self.file.device]], np.uint64)
        section.add(backend.name, MemoryKind.FILE, segments, backend.register(MemoryKind.FILE, segments))

    def write(self, *, deadline: float | None = None) -> TransferHandle:
        near = np.insert(BLOCKS, 2, 0, axis=1)
        far = near.copy()
        near[:, 0] += np.uint64(self.memory.ctypes.data)
        far[:, 2] = self.file.device
        section = self.engine.home.section
        plan = plan_transfer(
            Operation.WRITE,
            DescriptorList.of(MemoryKind.DRAM, near),
            DescriptorList.of(MemoryKind.FILE, far),
            route=Route.direct(self.name),
            local_table=section.lookup(self.name, MemoryKind.DRAM),
            remote_table=section.lookup(self.name, MemoryKind.FILE),
            peer="agent",
        )
        return self.engine.prepare(plan, self.engine.home, deadline=deadline).post()

    def close(self) -> None:
        self.engine.drain(Deadline(PATIENCE))
        self.engine.close()
        self.file.close()


@pytest.fixture(params=list(VARIANTS))
def bench(request: pytest.FixtureRequest, standin: Standin, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(request.param, tmp_path)
    yield made
    standin.hold(False)
    made.close()


def test_a_transfer_ends_without_anybody_driving_it(bench: Bench) -> None:
    seen: list[TransferHandle] = []
    handle = bench.write()
    handle.add_done_callback(seen.append)
    eventually(lambda: seen)
    assert handle.ok
    for at, length in BLOCKS.tolist():
        assert (bench.file.read()[at : at + length] == bench.memory[at : at + length]).all()


def test_a_failure_says_which_blocks(bench: Bench, standin: Standin) -> None:
    standin.fail("cuFileWrite", 5, times=99)
    with pytest.raises(TransferError, match=r"EIO \(Input/output error\); 0 of 8,192 bytes landed") as caught:
        bench.write().wait()
    assert caught.value.failed is not None
    assert caught.value.failed.tolist() == list(range(8))


def test_cancelled_it_ends_when_cufile_has_let_go(bench: Bench, standin: Standin) -> None:
    standin.hold()
    handle = bench.write()
    eventually(lambda: standin.held)
    handle.cancel()
    if bench.name == "GDS_MT":
        assert not handle.poll().is_quiet  # a plain call can't be cancelled
        standin.hold(False)
    with pytest.raises(TransferCancelledError):
        handle.wait()


def test_past_its_deadline_it_ends_when_cufile_has_let_go(bench: Bench, standin: Standin) -> None:
    standin.hold()
    handle = bench.write(deadline=0.01)
    request = handle._request
    assert isinstance(request, GdsRequest)
    eventually(lambda: request.is_stopping)
    if bench.name == "GDS_MT":
        standin.hold(False)
    with pytest.raises(TransferDeadlineError):
        handle.wait()
    assert not bench.file.read()[2048 * 7 :].any()


def test_memory_in_use_is_told(bench: Bench, standin: Standin) -> None:
    standin.hold()
    handle = bench.write()
    with pytest.raises(MemoryInUseError):
        bench.engine.check_unused(bench.name, bench.slots, Deadline(0.01))
    standin.hold(False)
    bench.engine.check_unused(bench.name, bench.slots, Deadline(PATIENCE))
    assert handle.ok
