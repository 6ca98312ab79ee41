"""Transfers on a backend that carries no notifications, beside one that does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.unit.transfer.conftest import BLOCK, DRAM, Bench

from trunkline.backend.contract import Operation
from trunkline.clock import Deadline
from trunkline.errors import BackendError, ClosedError, MemoryInUseError, NotRegisteredError, TransferError
from trunkline.memory.descriptor import DescriptorList
from trunkline.testing.stepped import SteppedBackend, SteppedPeer, SteppedRequest
from trunkline.transfer.engine import Engine
from trunkline.transfer.plan import plan_transfer
from trunkline.transfer.route import Route
from trunkline.transfer.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.backend.contract import BackendPeer, Request
    from trunkline.transfer.handle import TransferHandle


class Silent(SteppedBackend):
    """Moves bytes, and says nothing."""

    name = "SILENT"
    notify: Any = None


class Slow(SteppedBackend):
    """Its notifications are on their way until the test ends them."""

    def notify(self, peer: BackendPeer, payload: bytes, *, failure: bool = False) -> Request:
        done = super().notify(peer, payload, failure=failure)
        assert isinstance(done, SteppedRequest)
        request = SteppedRequest(self, done.posting, done.peer)
        request.post(payload)
        return request


class Quiet(Bench):
    """A bench whose data goes by ``silent``, and whose notifications by ``backend``."""

    def __init__(self) -> None:
        super().__init__()
        self.engine.close()  # that of one backend
        self.backend = Slow("decode-0")
        self.silent = Silent("decode-0")
        self.engine = Engine("decode-0", [self.silent, self.backend], timeout=10.0, grace=0.02)
        near, far = (np.array([[array.ctypes.data, array.nbytes, 0]], np.uint64) for array in (self.mine, self.theirs))
        self.engine.home.section.add("SILENT", DRAM, near, self.silent.register(DRAM, near))
        links = [backend.load_peer("prefill-0", self.remote.connection_info()) for backend in self.backends]
        self.target.links = {link._backend.name: link for link in links}
        self.aborted: list[str] = []
        for link in links:
            link.abort = partial(self._abort, link)  # type: ignore[method-assign]
        self.target.section.add("SILENT", DRAM, far, links[0]._backend.register(DRAM, far))

    @property
    def backends(self) -> tuple[SteppedBackend, SteppedBackend]:
        return self.silent, self.backend

    def post(self, notify: bytes | None = None) -> TransferHandle:
        near, far = (DescriptorList.of(DRAM, [(array.ctypes.data, BLOCK, 0)]) for array in (self.mine, self.theirs))
        plan = plan_transfer(
            Operation.READ,
            near,
            far,
            route=Route.direct("SILENT"),
            local_table=self.engine.home.section.lookup("SILENT", DRAM),
            remote_table=self.target.section.lookup("SILENT", DRAM),
            peer="prefill-0",
        )
        return self.engine.prepare(plan, self.target, notify=notify).post()

    def _abort(self, link: SteppedPeer, reason: str) -> None:
        self.aborted.append(link._backend.name)
        SteppedPeer.abort(link, reason)


@pytest.fixture
def bench() -> Iterator[Quiet]:
    bench = Quiet()
    yield bench
    bench.engine.drain(Deadline(1.0))
    bench.engine.close()
    bench.remote.close()


def test_only_the_data_is_forced_while_it_is_under_way(bench: Quiet) -> None:
    handle = bench.post(b"note")
    handle.abort("forced")
    assert handle.state is State.FAILED
    assert bench.aborted == ["SILENT"]


def test_only_the_notification_is_forced_once_it_is_on_its_way(bench: Quiet) -> None:
    handle, other = bench.post(b"note"), bench.post()
    bench.silent.in_flight[0].complete()
    assert handle.poll() is State.POSTED
    handle.abort("forced")
    assert bench.aborted == ["STEPPED"]
    with pytest.raises(TransferError, match="the data arrived, but the notification could not be sent: forced"):
        handle.wait()
    assert other.state is State.POSTED


def test_data_that_ends_just_then_leaves_no_notification_behind(bench: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = bench.post(b"note")
    link = bench.target.links["SILENT"]
    monkeypatch.setattr(link, "abort", lambda _: bench.silent.in_flight[0].complete())
    handle.abort("forced")
    assert bench.aborted == ["STEPPED"]
    assert handle.state is State.FAILED


def test_cancelling_reaches_the_notification(bench: Quiet) -> None:
    handle = bench.post(b"note")
    bench.silent.in_flight[0].complete()
    handle.poll()
    note = bench.backend.in_flight[0]
    handle.cancel()
    assert note.is_stopping
    note.complete()
    assert handle.wait().ok  # it was sent all the same


def test_nobody_carries_it(bench: Quiet) -> None:
    del bench.target.links["STEPPED"]
    handle = bench.post()
    bench.silent.in_flight[0].complete()
    with pytest.raises(BackendError, match="SILENT carries no notifications, nor does another one to peer 'prefill-0'"):
        handle.wait().post(b"note")
    assert handle.ok


def test_a_backend_may_come_while_notifications_are_delivered(bench: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    third = SteppedBackend("decode-0")
    monkeypatch.setattr(third, "name", "THIRD")

    def take() -> tuple[list[tuple[bytes, bool]], int]:
        monkeypatch.undo()
        third.name = "THIRD"
        bench.engine.add_backend(third)
        return [], 0

    monkeypatch.setattr(bench.backend, "take_notifications", take)
    bench.engine._deliver()
    assert list(bench.engine.notifying) == ["STEPPED", "THIRD"]


def test_none_comes_after_the_end(bench: Quiet) -> None:
    bench.engine.close()
    with pytest.raises(ClosedError):
        bench.engine.add_backend(SteppedBackend("decode-0"))


def test_the_far_side_within_the_agent_is_in_use_too(bench: Quiet) -> None:
    home = bench.engine.home
    far = np.array([[bench.theirs.ctypes.data, bench.theirs.nbytes, 0]], np.uint64)
    slots = bench.silent.register(DRAM, far)
    home.section.add("SILENT", DRAM, far, slots)
    table = home.section.lookup("SILENT", DRAM)
    sides = [DescriptorList.of(DRAM, [(array.ctypes.data, BLOCK, 0)]) for array in (bench.mine, bench.theirs)]
    plan = plan_transfer(
        Operation.WRITE,
        *sides,
        route=Route("SILENT", "SILENT", "SILENT", is_own=True),
        local_table=table,
        remote_table=table,
        peer=None,
    )
    handle = bench.engine.prepare(plan, home).post()
    with pytest.raises(MemoryInUseError):
        bench.engine.check_unused("SILENT", slots, Deadline(0.01))
    bench.silent.in_flight[0].complete()
    bench.engine.check_unused("SILENT", slots, Deadline(10))
    home.section.remove("SILENT", DRAM, slots)
    with pytest.raises(NotRegisteredError, match="the far side of this transfer was deregistered"):
        handle.post()
