from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.transfer.conftest import BLOCK, DRAM, Bench, request_of

from trunkline.clock import Deadline
from trunkline.errors import (
    DeadlineError,
    NotRegisteredError,
    PeerGoneError,
    SegmentGoneError,
    TransferCancelledError,
    TransferDeadlineError,
    TransferError,
    TransferStateError,
)
from trunkline.testing.waiting import eventually
from trunkline.transfer import handle as handle_module
from trunkline.transfer.failure import explain
from trunkline.transfer.state import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.transfer.handle import TransferHandle


def failure(handle: TransferHandle) -> TransferError:
    with pytest.raises(TransferError) as caught:
        handle.wait()
    assert handle.error is caught.value
    return caught.value


def test_the_life_of_a_good_transfer(bench: Bench) -> None:
    handle = bench.read(0, 2)
    assert handle.state is State.PREPARED
    with pytest.raises(TransferStateError, match="was not posted"):
        handle.wait()
    assert handle.post() is handle
    assert handle.poll() is State.POSTED
    with pytest.raises(DeadlineError, match=r"still running after 0 s; it was not cancelled"):
        handle.wait(0)
    with pytest.raises(TransferStateError, match="posted: wait for it"):
        handle.post()
    request_of(handle).complete()
    assert handle.wait() is handle
    assert (handle.ok, handle.error, handle.state) == (True, None, State.DONE)
    assert bytes(bench.mine[:BLOCK]) == bytes(bench.theirs[:BLOCK])
    assert bench.engine.active == set()


def test_a_failure_names_the_reason_and_the_blocks(bench: Bench) -> None:
    handle = bench.read(0, 2, 4).post()
    request_of(handle).fail("Connection reset by remote peer")
    error = failure(handle)
    assert type(error) is TransferError
    assert error.reason == "Connection reset by remote peer"
    assert error.failed is not None
    assert error.failed.tolist() == [0, 1, 2]
    assert "3 of 3 blocks" in str(error)
    assert "'prefill-0'" in str(error)
    assert error.context["agent"] == "prefill-0"
    assert handle.post().state is State.POSTED  # a retry
    assert handle.error is None


def test_no_failure_is_seen_before_its_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread settles it, another that looks at the state must not take it for a success."""
    states: list[State] = []

    def look(*facts: Any, **options: Any) -> TransferError:
        states.append(handle.state)
        return explain(*facts, **options)

    monkeypatch.setattr(handle_module, "explain", look)
    handle = bench.read(0).post()
    request_of(handle).fail("x")
    assert "FAILED" in str(failure(handle))
    assert states == [State.POSTED]


def test_a_cancelled_transfer_is_cancelled_once_it_is_quiet(bench: Bench) -> None:
    handle = bench.read(0, 2).post()
    seen = [handle.state]
    handle.cancel()
    seen.append(handle.state)
    with pytest.raises(TransferStateError, match="cancelling"):
        handle.post()
    request_of(handle).drain()
    assert isinstance(failure(handle), TransferCancelledError)
    seen.append(handle.state)
    handle.cancel()
    seen.append(handle.state)
    assert seen == [State.POSTED, State.CANCELLING, State.CANCELLED, State.CANCELLED]


def test_a_cancel_that_comes_too_late_changes_nothing(bench: Bench) -> None:
    handle = bench.read(0).post()
    handle.cancel()
    request_of(handle).complete()
    assert handle.wait().ok


def test_what_does_not_drain_is_forced_after_the_grace(bench: Bench) -> None:
    stuck, other = bench.read(0).post(), bench.read(2).post()
    stuck.cancel()
    assert isinstance(failure(stuck), TransferCancelledError)
    error = failure(other)
    assert type(error) is TransferError
    assert "did not drain" in error.reason


def test_a_deadline_stops_and_fails_a_transfer(bench: Bench) -> None:
    handle = bench.read(0, deadline=0.01).post()
    error = failure(handle)
    assert isinstance(error, TransferDeadlineError)
    assert "deadline of 0.01 s" in str(error)
    assert handle.state is State.FAILED


def test_a_deadline_of_an_earlier_round_does_not_count(bench: Bench) -> None:
    handle = bench.read(0, deadline=0.01).post()
    request_of(handle).complete()
    handle.wait()
    handle._deadline = None
    handle.post()
    eventually(lambda: not bench.engine._timers)
    assert handle.state is State.POSTED
    request_of(handle).complete()
    handle.wait()


def test_a_gone_peer_refuses_posts(bench: Bench) -> None:
    handle = bench.read(0)
    bench.target.gone = "withdrawn"
    with pytest.raises(PeerGoneError, match="withdrawn; fetch it again"):
        handle.post()
    assert handle.state is State.PREPARED
    with pytest.raises(PeerGoneError):
        bench.read(0)


def test_a_post_that_raises_leaves_the_handle_as_it_was(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = bench.read(0)

    def refuse(_notification: bytes | None = None) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr(request_of(handle), "post", refuse)
        with pytest.raises(RuntimeError, match="no"):
            handle.post()
    assert handle.state is State.PREPARED
    assert bench.engine.active == set()
    handle.post()


def test_callbacks_run_once_a_round(bench: Bench) -> None:
    seen: list[State] = []
    handle = bench.read(0).post()
    handle.add_done_callback(lambda each: seen.append(each.state))
    assert seen == []
    request_of(handle).fail("no")
    failure(handle)
    handle.post()
    request_of(handle).complete()
    handle.wait()
    assert seen == [State.FAILED]
    handle.add_done_callback(lambda each: seen.append(each.state))
    assert seen == [State.FAILED, State.DONE]


def test_a_callback_that_raises_hurts_nobody(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[TransferHandle] = []
    handle = bench.read(0).post()
    handle.add_done_callback(lambda _: 1 / 0)
    handle.add_done_callback(seen.append)
    request_of(handle).complete()
    handle.wait()
    assert seen == [handle]
    assert "ZeroDivisionError" in caplog.text


async def test_awaiting(bench: Bench) -> None:
    handle = bench.read(0)
    with pytest.raises(TransferStateError):
        await handle
    handle.post()
    threading.Timer(0.02, request_of(handle).complete).start()
    assert await handle is handle
    assert await handle is handle
    handle.post()
    request_of(handle).fail("gone")
    with pytest.raises(TransferError, match="gone"):
        await handle


async def test_a_cancelled_await_leaves_the_transfer_alone(bench: Bench) -> None:
    handle = bench.read(0).post()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.ensure_future(waiting(handle)), 0.01)
    assert handle.state is State.POSTED
    request_of(handle).complete()
    await handle


async def waiting(handle: TransferHandle) -> Any:
    return await handle


class Rounds(RuleBasedStateMachine):
    """Whatever happens in whatever order: quiet means that the backend is done, and every end is told once."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.bench.engine.grace = 3600.0
        self.handle = self.bench.read(0, 2, tag="t")
        self.ends = 0
        self.expected_ends = 0

    def _count(self, _: object) -> None:
        self.ends += 1

    @precondition(lambda self: self.handle.state.is_quiet)
    @rule()
    def post(self) -> None:
        self.handle.post()
        self.handle.add_done_callback(self._count)
        self.expected_ends += 1

    @rule()
    def cancel(self) -> None:
        self.handle.cancel()

    @precondition(lambda self: not self.handle.state.is_quiet)
    @rule(how=st.sampled_from(["complete", "fail"]))
    def end(self, how: str) -> None:
        request = request_of(self.handle)
        if how == "complete":
            request.complete()
        else:
            request.fail("reason")
        self.handle.poll()
        assert self.handle.state.has_ended

    @precondition(lambda self: self.handle.state is State.CANCELLING)
    @rule()
    def drain(self) -> None:
        request_of(self.handle).drain()
        self.handle.poll()
        assert self.handle.state is State.CANCELLED

    @rule()
    def look(self) -> None:
        self.handle.poll()

    @invariant()
    def the_books_agree(self) -> None:
        running = not self.handle.state.is_quiet
        assert (self.handle in self.bench.engine.active) == running
        assert self.ends == self.expected_ends - running
        assert (self.handle.error is not None) == (self.handle.state in {State.FAILED, State.CANCELLED})

    def teardown(self) -> None:
        assert len(self.bench.engine.take_finished()) == self.ends
        self.bench.engine.drain(Deadline(0))
        self.bench.engine.close()
        self.bench.remote.close()


Rounds.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestRounds = Rounds.TestCase


def in_another_thread(work: Callable[[], object]) -> threading.Thread:
    """Start it and give it time to get as far as it can."""
    thread = threading.Thread(target=work, name="other", daemon=True)
    thread.start()
    thread.join(0.1)
    return thread


def test_a_round_posted_while_the_last_one_is_booked_is_among_the_active(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = bench.read(0).post()
    others: list[threading.Thread] = []
    book = bench.engine.ended

    def slowly(ended: TransferHandle) -> None:
        others.append(in_another_thread(handle.post))
        book(ended)

    with monkeypatch.context() as patch:
        patch.setattr(bench.engine, "ended", slowly)
        request_of(handle).complete()
        handle.wait()
    others[0].join()
    assert handle.state is State.POSTED
    assert bench.engine.active == {handle}


def test_a_cancel_does_not_stop_the_next_round(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = bench.read(0).post()
    request = request_of(handle)
    others: list[threading.Thread] = []

    def slowly() -> None:
        request.complete()
        others.append(in_another_thread(lambda: handle.wait().post()))
        request.is_stopping = True

    monkeypatch.setattr(request, "stop", slowly)
    handle.cancel()
    others[0].join()
    assert handle.state is State.POSTED
    assert not request.is_stopping


def test_a_wait_during_the_next_post_waits_for_that_round(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = bench.read(0).post()
    request = request_of(handle)
    request.complete()
    handle.wait()
    others: list[threading.Thread] = []
    seen: list[State] = []
    post = request.post

    def slowly(notification: bytes | None = None) -> Any:
        others.append(in_another_thread(lambda: seen.append(handle.wait().state)))
        return post(notification)

    monkeypatch.setattr(request, "post", slowly)
    handle.post()
    others[0].join(0.1)
    assert seen == []
    request.complete()
    others[0].join()
    assert seen == [State.DONE]


def test_memory_that_was_deregistered_is_not_used_again(bench: Bench) -> None:
    handle = bench.read(0).post()
    request_of(handle).complete()
    handle.wait()
    bench.engine.home.section.remove(bench.backend.name, DRAM, bench.slots)
    other = np.array([[bench.mine.ctypes.data + BLOCK, BLOCK, 0]], np.uint64)
    bench.engine.home.section.add(bench.backend.name, DRAM, other, bench.slots)  # its slot has another use now
    with pytest.raises(NotRegisteredError, match="was deregistered"):
        handle.post()
    assert bench.engine.active == set()
    assert request_of(handle).posted == 1


def test_memory_that_the_peer_withdrew_is_not_used_again(bench: Bench) -> None:
    handle = bench.read(0).post()
    request_of(handle).complete()
    handle.wait()
    table = bench.target.section.lookup(bench.backend.name, DRAM)
    bench.target.section.remove(bench.backend.name, DRAM, table.slots)
    with pytest.raises(SegmentGoneError, match="does not offer"):
        handle.post()
    bench.target.section.add(bench.backend.name, DRAM, table.segments, table.slots)
    assert handle.post().state is State.POSTED
