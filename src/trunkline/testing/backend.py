"""What every backend promises, as tests.

A plug-in's tests subclass :class:`BackendContract` and give it a ``link``::

    class TestMine(BackendContract):
        @pytest.fixture
        def link(self) -> Iterator[Link]:
            backend = MyBackend("agent")
            yield Link(backend, backend, None)
            backend.close()
"""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.backend.contract import (
    Backend,
    NotifyingBackend,
    Operation,
    ProgressingBackend,
    QueryableBackend,
    RemoteBackend,
    Request,
    Status,
)
from trunkline.errors import ClosedError, MemoryRegistrationError, TransferStateError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import Link, Rows, bytes_of, finish, make_posting, segments_of
from trunkline.testing.waiting import PATIENCE

__all__ = ["BackendContract", "Link"]


@st.composite
def scattered_rows(draw: st.DrawFn, size: int) -> Rows:
    """Rows that overlap on neither side, in any order, of any lengths from 1 up."""
    lengths = draw(st.lists(st.integers(1, size // 16), min_size=1, max_size=16))

    def place() -> list[int]:
        order = draw(st.permutations(range(len(lengths))))
        spare = (size - sum(lengths)) // len(lengths)
        offsets, at = [0] * len(lengths), 0
        for row in order:
            at += draw(st.integers(0, spare))
            offsets[row] = at
            at += lengths[row]
        return offsets

    return list(zip(place(), place(), lengths, strict=True))


def whole(rows: Rows) -> Rows:
    """Return rows of the same lengths that leave no holes on the far side, which begin at its start."""
    packed, at = list(rows), 0
    for row in sorted(range(len(rows)), key=lambda row: rows[row][1]):
        packed[row] = (rows[row][0], at, rows[row][2])
        at += rows[row][2]
    return packed


class BackendContract:
    """What every backend promises. Subclasses provide the fixture ``link``.

    Attributes:
        SIZE: Bytes of small transfers.
        LARGE: Bytes of a transfer that does not end at once; less where the far side is slow.
        partial_writes: Whether a far side can be written in part; objects can not.
    """

    SIZE = 1 << 16
    LARGE = 64 << 20
    partial_writes = True

    @pytest.fixture
    def link(self) -> Any:
        pytest.fail("a subclass of BackendContract provides the fixture `link`")

    def test_capabilities_agree_with_protocols(self, link: Link) -> None:
        backend = link.initiator
        assert isinstance(backend, Backend)
        assert MemoryKind.DRAM in backend.capabilities.local_kinds
        assert backend.capabilities.remote_kinds | backend.capabilities.own_kinds
        assert isinstance(backend, RemoteBackend) == bool(backend.capabilities.remote_kinds)
        assert isinstance(backend, NotifyingBackend) == backend.capabilities.notifications
        assert isinstance(backend, ProgressingBackend) == backend.capabilities.progress
        assert isinstance(backend, QueryableBackend) == backend.capabilities.queries
        assert backend.name == backend.name.upper()

    @pytest.mark.parametrize("operation", list(Operation))
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(rows=scattered_rows(SIZE), seed=st.integers(0, 99))
    def test_moves_exactly_the_rows(self, link: Link, operation: Operation, rows: Rows, seed: int) -> None:
        local, before = bytes_of(self.SIZE, seed), bytes_of(self.SIZE, seed + 1000)
        if operation is Operation.WRITE and not self.partial_writes:
            rows = whole(rows)
            before = before[: sum(length for _, _, length in rows)]
        expected_local, expected_remote = local.copy(), before.copy()
        for local_offset, remote_offset, length in rows:
            here, there = slice(local_offset, local_offset + length), slice(remote_offset, remote_offset + length)
            if operation is Operation.READ:
                expected_local[here] = before[there]
            else:
                expected_remote[there] = local[here]
        remote = link.place(before)
        request = link.prepare(operation, local, remote, rows)
        assert finish(request, request.post()) == Status.DONE, request.reason
        assert request.completed == len(rows)
        np.testing.assert_array_equal(local, expected_local)
        np.testing.assert_array_equal(remote.read(), expected_remote)

    @pytest.mark.parametrize("operation", list(Operation))
    @pytest.mark.parametrize("rows_of", ["many", "large", "none"])
    def test_many_and_large_rows(self, link: Link, operation: Operation, rows_of: str) -> None:
        count, size = {"many": (5000, 64), "large": (3, self.LARGE // 64 * 9), "none": (0, 1)}[rows_of]
        local, remote = bytes_of(max(1, count * size), 1), link.place(bytes_of(max(1, count * size), 2))
        order = np.random.default_rng(3).permutation(count)
        rows = [(row * size, int(order[row]) * size, size) for row in range(count)]
        request = link.prepare(operation, local, remote, rows)
        assert finish(request, request.post()) == Status.DONE, request.reason
        assert request.completed == count
        if count:
            np.testing.assert_array_equal(local.reshape(count, size), remote.read().reshape(count, size)[order])

    def test_is_idle_before_it_is_posted_and_may_be_posted_again(self, link: Link) -> None:
        local, remote = bytes_of(4096, 1), link.place(np.zeros(4096, np.uint8))
        request = link.prepare(Operation.WRITE, local, remote, [(0, 0, 4096)])
        assert request.poll() == Status.IDLE
        assert request.completed == 0
        assert not remote.read().any()
        for value in range(3):
            local[:] = value + 1
            assert finish(request, request.post()) == Status.DONE
            assert (remote.read() == value + 1).all()
            assert request.poll() == Status.DONE
            assert request.wait(0) == Status.DONE
            assert 0 < request.post_ns <= request.total_ns + 1_000_000_000

    def test_registers_all_segments_or_none(self, link: Link) -> None:
        memory = np.zeros(4096, np.uint8)
        segments = np.vstack([segments_of(memory), np.array([[memory.ctypes.data, 0, 0]], np.uint64)])
        with pytest.raises(MemoryRegistrationError, match="none was registered"):
            link.initiator.register(MemoryKind.DRAM, segments)
        able = link.initiator.capabilities.local_kinds | link.initiator.capabilities.own_kinds
        with pytest.raises(MemoryRegistrationError):
            link.initiator.register(next(kind for kind in MemoryKind if kind not in able), segments_of(memory))
        slots = link.initiator.register(MemoryKind.DRAM, np.repeat(segments[:1], 300, axis=0))
        assert len(slots) == 300
        assert link.initiator.capabilities.keyless or len(set(slots.tolist())) == 300
        link.initiator.deregister(slots)

    def test_a_deregistered_segment_is_not_used(self, link: Link) -> None:
        if link.initiator.capabilities.keyless:
            pytest.skip("it keeps no account of segments")
        local, remote = bytes_of(64, 1), link.place(np.zeros(64, np.uint8))
        slots = link.register(local)
        posting = make_posting(Operation.WRITE, local, slots, remote, link.offer(remote), [(0, 0, 64)])
        request = link.initiator.prepare(posting, link.peer)
        link.initiator.deregister(slots)
        assert finish(request, request.post()) == Status.FAILED
        assert "registered" in request.reason
        assert not remote.read().any()

    @pytest.mark.parametrize("side", ["local", "remote"])
    def test_a_slot_that_passed_to_another_segment_is_not_used(self, link: Link, side: str) -> None:
        if link.initiator.capabilities.keyless:
            pytest.skip("it keeps no account of segments")
        local, remote, near = bytes_of(64, 1), link.place(np.zeros(64, np.uint8)), np.zeros(64, np.uint8)
        other = link.place(np.zeros(64, np.uint8))
        local_slots, remote_slots = link.register(local), link.offer(remote)
        posting = make_posting(Operation.WRITE, local, local_slots, remote, remote_slots, [(0, 0, 64)])
        request = link.initiator.prepare(posting, link.peer)
        assert finish(request, request.post()) == Status.DONE
        if side == "local":
            link.initiator.deregister(local_slots)
            link.register(near)
        else:
            if link.peer is None:
                link.target.deregister(remote_slots)
            else:
                link.peer.unload_segments(remote_slots)
            link.offer(other)
        remote.write(np.zeros(remote.nbytes, np.uint8))
        assert finish(request, request.post()) == Status.FAILED
        assert not remote.read().any()
        assert not near.any()
        assert not other.read().any()

    def test_keeps_the_owner_of_a_posting_until_it_is_quiet(self, link: Link) -> None:
        class Owner:
            pass

        size = self.LARGE
        local, remote = bytes_of(size, 1), link.place(np.zeros(size, np.uint8))
        posting = make_posting(Operation.WRITE, local, link.register(local), remote, link.offer(remote), [(0, 0, size)])
        owner = Owner()
        object.__setattr__(posting, "owner", owner)
        witness = weakref.ref(owner)
        request = link.initiator.prepare(posting, link.peer)
        status = request.post()
        del owner, posting
        if status == Status.IN_PROGRESS:
            del request
            gc.collect()
            assert witness() is not None
            backend = link.initiator
            assert isinstance(backend, ProgressingBackend)
            finished: list[Request] = []
            end = time.monotonic() + PATIENCE
            while not finished and time.monotonic() < end:
                if not backend.progress():
                    backend.run(time.monotonic() + 0.01)
                finished += backend.take_finished()
            assert [request.poll() for request in finished] == [Status.DONE]
            del finished
        else:
            del request
        gc.collect()
        assert witness() is None
        np.testing.assert_array_equal(local, remote.read())

    def test_reports_an_end_once(self, link: Link) -> None:
        backend = link.initiator
        if not isinstance(backend, ProgressingBackend):
            return
        size = self.LARGE // 2
        local, remote = bytes_of(size, 1), link.place(np.zeros(size, np.uint8))
        polled = link.prepare(Operation.WRITE, local, remote, [(0, 0, size)])
        taken = link.prepare(Operation.READ, local, remote, [(0, 0, size)])
        assert finish(polled, polled.post()) == Status.DONE
        assert backend.take_finished() == []
        assert taken.post() == Status.IN_PROGRESS
        while not (finished := backend.take_finished()):
            backend.run(time.monotonic() + PATIENCE)
        assert finished == [taken]
        assert taken.poll() == Status.DONE
        assert backend.take_finished() == []

    def test_one_that_runs_is_not_posted_again(self, link: Link) -> None:
        size = self.LARGE // 2
        local, remote = bytes_of(size, 1), link.place(np.zeros(size, np.uint8))
        request = link.prepare(Operation.READ, local, remote, [(0, 0, size)])
        for _ in range(20):  # where threads carry it out, it may have ended before the second call
            status = request.post()
            if status == Status.DONE:
                return
            try:
                request.post()
            except TransferStateError:
                assert finish(request, Status.IN_PROGRESS) == Status.DONE
                return
            assert finish(request, Status.IN_PROGRESS) == Status.DONE
        pytest.fail("it was posted again each time, and never refused")

    def test_stop_posts_no_more_and_drains(self, link: Link) -> None:
        size = 2 * self.LARGE
        local, remote = np.ones(size, np.uint8), link.place(np.zeros(size, np.uint8))
        rows = [(at, at, 1 << 20) for at in range(0, size, 1 << 20)]
        request = link.prepare(Operation.WRITE, local, remote, rows)
        status = request.post()
        request.stop()
        status = finish(request, status)
        if isinstance(link.initiator, ProgressingBackend):
            assert status == Status.STOPPED
            assert request.completed < len(rows)
            assert not remote.read()[-1]
        else:
            assert status == Status.DONE
        assert remote.read()[: request.completed << 20].all()
        assert finish(request, request.post()) == Status.DONE
        assert remote.read().all()

    def test_a_wait_that_runs_out_cancels_nothing(self, link: Link) -> None:
        size = self.LARGE
        local, remote = np.ones(size, np.uint8), link.place(np.zeros(size, np.uint8))
        request = link.prepare(Operation.WRITE, local, remote, [(0, 0, size)])
        for _ in range(20):  # where threads carry it out, it may have ended before the first wait
            posted = request.post()
            waited = request.wait(0) if posted == Status.IN_PROGRESS else posted
            assert request.wait(time.monotonic() + PATIENCE) == Status.DONE
            assert remote.read().all()
            if waited == posted:
                return
            remote.write(np.zeros(remote.nbytes, np.uint8))
        pytest.fail("it had ended each time before it was waited for")

    def test_waits_from_several_threads(self, link: Link) -> None:
        ends: list[Status] = []

        def work(seed: int) -> None:
            local, remote = bytes_of(1 << 20, seed), link.place(np.zeros(1 << 20, np.uint8))
            request = link.prepare(Operation.WRITE, local, remote, [(0, 0, 1 << 20)])
            for _ in range(20):
                remote.write(np.zeros(remote.nbytes, np.uint8))
                end = finish(request, request.post())
                ends.append(end if bytes(local) == bytes(remote.read()) else Status.FAILED)

        threads = [threading.Thread(target=work, args=(seed,), name=f"work-{seed}") for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert ends == [Status.DONE] * 80

    def test_delivers_notifications_after_the_data(self, link: Link) -> None:
        target = link.target
        if not isinstance(target, NotifyingBackend):
            return
        local, remote = bytes_of(8 << 20, 1), link.place(np.zeros(8 << 20, np.uint8))
        request = link.prepare(Operation.WRITE, local, remote, [(0, 0, 8 << 20)])
        payloads = [b"", b"note \0 |", bytes(20_000), bytes(range(256)) * 400]
        for payload in payloads:
            remote.write(np.zeros(remote.nbytes, np.uint8))
            status = request.post(payload)
            arrived: list[tuple[bytes, bool]] = []
            finish(request, status)
            end = time.monotonic() + PATIENCE
            while not arrived and time.monotonic() < end:
                arrived, dropped = target.take_notifications()
                assert dropped == 0
            assert arrived == [(payload, False)]
            np.testing.assert_array_equal(local, remote.read())
            assert request.poll() == Status.DONE

    def test_notifies_alone_in_order_with_failure_marks(self, link: Link) -> None:
        initiator, target = link.initiator, link.target
        if not isinstance(initiator, NotifyingBackend) or not isinstance(target, NotifyingBackend):
            return
        assert link.peer is not None
        for number in range(100):
            request = initiator.notify(link.peer, b"%d" % number, failure=number % 3 == 0)
            assert finish(request, request.poll()) == Status.DONE
        arrived: list[tuple[bytes, bool]] = []
        end = time.monotonic() + PATIENCE
        while len(arrived) < 100 and time.monotonic() < end:
            arrived += target.take_notifications()[0]
        assert arrived == [(b"%d" % number, number % 3 == 0) for number in range(100)]

    def test_run_returns_when_woken_or_at_the_end(self, link: Link) -> None:
        backend = link.initiator
        if not isinstance(backend, ProgressingBackend):
            return
        backend.wake()
        backend.run(time.monotonic() + PATIENCE)  # woken before it began
        started = time.monotonic()
        backend.run(started + 0.05)
        assert time.monotonic() - started >= 0.05
        thread = threading.Thread(target=backend.run, args=(time.monotonic() + 10 * PATIENCE,), name="run")
        thread.start()
        backend.wake()
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def test_closes_quietly(self, link: Link) -> None:
        size = self.LARGE
        local, remote = np.ones(size, np.uint8), link.place(np.zeros(size, np.uint8))
        request = link.prepare(Operation.WRITE, local, remote, [(0, 0, size)])
        status = request.post()
        link.initiator.close()
        link.initiator.close()
        assert request.poll() == (Status.FAILED if status == Status.IN_PROGRESS else Status.DONE)
        local[:] = 99  # what was on its way may still arrive, what is written now may not
        time.sleep(0.1)
        assert not (remote.read() == 99).any()
        with pytest.raises(ClosedError):
            link.initiator.register(MemoryKind.DRAM, segments_of(local))
        with pytest.raises(ClosedError):
            request.post()
