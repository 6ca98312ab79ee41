"""An engine over a backend that tests move by hand, with a peer and memory on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline.backend.contract import Operation
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind
from trunkline.testing.stepped import SteppedBackend, SteppedPeer, SteppedRequest
from trunkline.transfer.engine import Engine
from trunkline.transfer.plan import plan_transfer
from trunkline.transfer.route import Route
from trunkline.transfer.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.transfer.handle import TransferHandle

DRAM = MemoryKind.DRAM
BLOCK = 64


class Bench:
    """Two stepped backends in one process; ``engine`` drives the first, the second is the peer ``prefill-0``."""

    def __init__(self) -> None:
        self.backend = SteppedBackend("decode-0")
        self.engine = Engine("decode-0", [self.backend], timeout=10.0, grace=0.02)
        self.remote = SteppedBackend("prefill-0")
        self.mine = np.zeros(16 * BLOCK, np.uint8)
        self.theirs = np.arange(16 * BLOCK, dtype=np.uint8)
        near, far = (np.array([[array.ctypes.data, array.nbytes, 0]], np.uint64) for array in (self.mine, self.theirs))
        self.slots = self.backend.register(DRAM, near)
        self.engine.home.section.add(self.backend.name, DRAM, near, self.slots)
        link = self.backend.load_peer("prefill-0", self.remote.connection_info())
        self.target = Target("prefill-0", {self.backend.name: link}, hears_failures=True)
        keys = self.remote.remote_keys(self.remote.register(DRAM, far))
        self.target.section.add(self.backend.name, DRAM, far, link.load_segments(DRAM, far, keys))

    @property
    def link(self) -> SteppedPeer:
        link = self.target.links[self.backend.name]
        assert isinstance(link, SteppedPeer)
        return link

    def read(self, *rows: int, **options: Any) -> TransferHandle:
        """Prepare a read of some blocks, every other of which can't be coalesced."""
        near, far = (
            DescriptorList.of(DRAM, [(array.ctypes.data + row * BLOCK, BLOCK, 0) for row in rows])
            for array in (self.mine, self.theirs)
        )
        plan = plan_transfer(
            Operation.READ,
            near,
            far,
            route=Route.direct(self.backend.name),
            local_table=self.engine.home.section.lookup(self.backend.name, DRAM),
            remote_table=self.target.section.lookup(self.backend.name, DRAM),
            peer=self.target.name,
        )
        return self.engine.prepare(plan, self.target, **options)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    from trunkline.clock import Deadline

    bench.engine.drain(Deadline(1.0))
    bench.engine.close()
    bench.remote.close()


def request_of(handle: TransferHandle) -> SteppedRequest:
    """The stepped request underneath a handle."""
    request = handle._request
    assert isinstance(request, SteppedRequest)
    return request
