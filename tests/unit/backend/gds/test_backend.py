"""What cuFile is called with, as the stand-in sees it."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.standin.cufile import VARIANTS, Standin, TemporaryFile, linked

from trunkline.backend.contract import Operation, Posting, Status
from trunkline.backend.plugins.gds import GdsBackend, GdsMtBackend
from trunkline.errors import BackendError, BackendUnavailableError, ForkedError, MemoryRegistrationError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import Link, bytes_of, finish, make_posting, segments_of
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


@pytest.fixture(params=list(VARIANTS))
def link(request: pytest.FixtureRequest, standin: Standin, tmp_path: Path) -> Iterator[Link]:
    with linked(VARIANTS[request.param]("agent"), tmp_path) as made:
        yield made


def io(standin: Standin) -> list[tuple[int, ...]]:
    """Return (size, at, into, pinned, gpu) of each read and write."""
    pattern = re.compile(r"cuFile(?:Read|Write) base=\S+ size=(\d+) at=(\d+) into=(\d+) pinned=(\d) gpu=(-?\d+)")
    return sorted(tuple(map(int, match.groups())) for call in standin.calls if (match := pattern.match(call)))


def segment(memory: NDArray[Any], device: int) -> NDArray[np.uint64]:
    return np.array([[memory.ctypes.data, memory.nbytes, device]], np.uint64)


def test_the_calls_come_in_order(standin: Standin, tmp_path: Path) -> None:
    memory = bytes_of(4096, 1)
    file = TemporaryFile(tmp_path, np.zeros(4096, np.uint8))
    standin.record()
    backend = GdsBackend("agent", batch_pool_size=1)
    near = backend.register(MemoryKind.VRAM, segment(memory, 3))
    far = backend.register(MemoryKind.FILE, np.array([[0, 4096, file.device]], np.uint64))
    rows = [(0, 0, 1024), (2048, 2048, 1024)]
    request = backend.prepare(make_posting(Operation.WRITE, memory, near, file, far, rows), None)
    assert finish(request, request.post()) == Status.DONE
    backend.close()
    file.close()
    assert standin.names == [
        "cuFileDriverOpen",
        "cuFileBatchIOSetUp",
        "cuFileBufRegister",
        "cuFileHandleRegister",
        "cuFileBatchIOSubmit",
        "cuFileWrite",
        "cuFileWrite",
        "cuFileBatchIODestroy",
        "cuFileBufDeregister",
        "cuFileHandleDeregister",
        "cuFileDriverClose",
    ]
    assert "gpu=3" in standin.calls[2]
    assert standin.calls[4] == "cuFileBatchIOSubmit nr=2 flags=0 gpu=3"
    assert "gpu=3" in standin.calls[8]
    assert (file.read()[2048:3072] == memory[2048:3072]).all()


def test_memory_of_gpus_is_moved_in_its_gpus_context(link: Link, standin: Standin) -> None:
    """One request with memory of two GPUs and of the host; what is plain memory here."""
    memory = bytes_of(3 * 1024, 1)
    file = link.place(np.zeros(3 * 1024, np.uint8))
    parts, kinds = memory.reshape(3, 1024), (MemoryKind.VRAM, MemoryKind.DRAM, MemoryKind.VRAM)
    near = [
        link.initiator.register(kind, segment(part, device))
        for kind, part, device in zip(kinds, parts, (0, 0, 5), strict=True)
    ]
    offset = np.arange(0, 3 * 1024, 1024, dtype=np.uint64)
    posting = Posting(
        Operation.WRITE,
        offset + np.uint64(memory.ctypes.data),
        offset,
        np.full(3, 1024, np.uint64),
        np.concatenate(near),
        np.repeat(link.offer(file), 3),
    )
    standin.record()
    request = link.initiator.prepare(posting, None)
    assert finish(request, request.post()) == Status.DONE
    assert io(standin) == [(1024, 0, 0, 1, 0), (1024, 1024, 0, 1, -1), (1024, 2048, 0, 1, 5)]
    assert standin.alive["contexts"] == 2
    np.testing.assert_array_equal(file.read(), memory)


def test_a_gpu_that_is_not_there_is_told(link: Link, standin: Standin) -> None:
    memory = bytes_of(64, 1)
    with pytest.raises(MemoryRegistrationError, match=r"GPU 9 returned CUDA_ERROR_INVALID_DEVICE \(101\); none was"):
        link.initiator.register(MemoryKind.VRAM, segment(memory, 9))
    assert standin.alive["buffers"] == 0


def test_rows_that_follow_one_another_are_joined_and_long_ones_cut(standin: Standin, tmp_path: Path) -> None:
    memory, size = bytes_of(1 << 20, 1), 1 << 16
    with linked(GdsBackend("agent", max_request_size=size), tmp_path) as link:
        far = link.place(np.zeros(1 << 20, np.uint8))
        rows = [(at, at, 1024) for at in range(4096, 8192, 1024)]  # one piece of 4096
        rows += [(16384, 20480, 100), (16484, 30000, 100)]  # not together in the file
        rows += [(100_000, 100_000, 2 * size + 1), (50, 50, 0)]
        request = link.prepare(Operation.WRITE, memory, far, rows)
        standin.record()
        assert finish(request, request.post()) == Status.DONE
        assert request.completed == len(rows)
        assert io(standin) == sorted(
            [
                (4096, 4096, 4096, 1, -1),
                (100, 20480, 16384, 1, -1),
                (100, 30000, 16484, 1, -1),
                (size, 100_000, 100_000, 1, -1),
                (size, 100_000 + size, 100_000 + size, 1, -1),
                (1, 100_000 + 2 * size, 100_000 + 2 * size, 1, -1),
            ]
        )


def test_what_moves_fewer_bytes_goes_on(link: Link, standin: Standin) -> None:
    memory = bytes_of(10_000, 1)
    far = link.place(np.zeros(10_000, np.uint8))
    request = link.prepare(Operation.WRITE, memory, far, [(0, 0, 6000), (7000, 7000, 3000)])
    standin.shorten(999)
    standin.record()
    assert finish(request, request.post()) == Status.DONE
    np.testing.assert_array_equal(far.read()[:6000], memory[:6000])
    np.testing.assert_array_equal(far.read()[7000:], memory[7000:])
    assert len(io(standin)) == 7 + 4


def test_rows_outside_their_segments_move_nothing(link: Link) -> None:
    memory, far = bytes_of(64, 1), link.place(np.zeros(64, np.uint8))
    near_slots, far_slots = link.register(memory), link.offer(far)
    for rows, side in (([(0, 0, 8), (60, 8, 8)], "memory"), ([(0, 0, 8), (8, 60, 8)], "the file")):
        posting = make_posting(Operation.WRITE, memory, near_slots, far, far_slots, rows)
        request = link.initiator.prepare(posting, None)
        assert request.post() == Status.FAILED
        assert re.match(f"row 1: 8 bytes at .* of {side} are not in registered segment", request.reason)
        assert request.completed == 0
    assert not far.read().any()


def test_two_sides_of_memory_are_refused(link: Link) -> None:
    memory = bytes_of(64, 1)
    slots = link.register(memory)
    request = link.initiator.prepare(make_posting(Operation.READ, memory, slots, memory, slots, [(0, 0, 8)]), None)
    assert request.post() == Status.FAILED
    assert "memory (local) and registered files (remote)" in request.reason


def test_it_has_no_peers_and_carries_no_notifications(link: Link) -> None:
    memory = bytes_of(8, 1)
    request = link.prepare(Operation.WRITE, memory, link.place(np.zeros(8, np.uint8)), [(0, 0, 8)])
    with pytest.raises(BackendError, match="carries no notifications"):
        request.post(b"note")
    with pytest.raises(BackendError, match="can't reach peer 'far'"):
        link.initiator.prepare(
            make_posting(Operation.READ, np.zeros(1), np.zeros(1, np.int32), np.zeros(1), np.zeros(1, np.int32), []),
            type("Peer", (), {"name": "far"})(),
        )


def test_a_descriptor_is_duplicated(link: Link) -> None:
    memory, far = bytes_of(4096, 1), link.place(np.zeros(4096, np.uint8))
    other = link.place(np.zeros(4096, np.uint8))
    request = link.prepare(Operation.WRITE, memory, far, [(0, 0, 4096)])
    number = far.device
    os.dup2(other.device, number)  # the number is another file's now
    assert finish(request, request.post()) == Status.DONE
    np.testing.assert_array_equal(far.read(), memory)
    assert not other.read().any()


def test_a_path_with_a_mode_is_opened_and_a_mere_path_is_a_name(link: Link, standin: Standin, tmp_path: Path) -> None:
    """As with the POSIX backend: an agent registers a file with both, and transfers may go through either."""
    memory, far, other = bytes_of(4096, 1), link.place(np.zeros(4096, np.uint8)), link.place(np.zeros(1, np.uint8))
    path = far.path  # type: ignore[attr-defined]
    standin.record()
    for device, name in ((other.device, f"rw,direct:{path}"), (1 << 40, f"rw:{path}"), (far.device, "/some/name")):
        slots = link.initiator.register(MemoryKind.FILE, np.array([[0, 4096, device]], np.uint64), [name])
        posting = make_posting(Operation.WRITE, memory, link.register(memory), far, slots, [(0, 0, 4096)])
        request = link.initiator.prepare(posting, None)
        far.write(np.zeros(4096, np.uint8))
        assert finish(request, request.post()) == Status.DONE
        np.testing.assert_array_equal(far.read(), memory)
    assert other.read().tolist() == [0]
    assert [call.split()[-1] for call in standin.calls if call.startswith("cuFileHandleRegister")] == [
        "direct=1",
        "direct=0",
        "direct=0",
    ]


def test_a_device_number_stands_for_one_file_at_a_time(link: Link, standin: Standin) -> None:
    one, other = (link.place(np.zeros(8, np.uint8)) for _ in range(2))
    number, kept = one.device, os.dup(one.device)
    slots = link.offer(one)
    os.dup2(other.device, number)  # closed, and its number used again
    with pytest.raises(MemoryRegistrationError, match=rf"stands for 'descriptor {number}', or .*; none was registered"):
        link.offer(one)
    assert standin.alive["files"] == 1
    os.dup2(kept, number)
    link.offer(one)
    os.close(kept)
    link.initiator.deregister(slots)
    os.dup2(other.device, number)
    with pytest.raises(MemoryRegistrationError, match="stands for"):
        link.offer(one)
    link.initiator.deregister(slots + 1)
    link.offer(one)


def test_files_that_can_not_be_are_told(link: Link, standin: Standin, tmp_path: Path) -> None:
    backend = link.initiator
    os.mkfifo(tmp_path / "fifo")
    cases = [
        ([0, 8, 0], f"rw:{tmp_path / 'nowhere'}", r"segment 0 of 1 \(FILE of 'rw:.*nowhere'.*ENOENT: No such file"),
        ([0, 8, 1 << 30], "", r"device 1073741824\): .*EBADF: Bad file descriptor"),
        ([0, 8, 0], f"ro:{tmp_path / 'fifo'}", "it is a FIFO: only regular files and block devices"),
        ([(1 << 63) - 4, 4, 0], "", "it is empty, or nowhere"),
    ]
    for segment_of_file, name, message in cases:
        with pytest.raises(MemoryRegistrationError, match=message):
            backend.register(MemoryKind.FILE, np.array([segment_of_file], np.uint64), [name])
    appending = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    with pytest.raises(MemoryRegistrationError, match="O_APPEND"):
        backend.register(MemoryKind.FILE, np.array([[0, 8, appending]], np.uint64))
    os.close(appending)
    assert standin.alive["files"] == 0


def test_registrations_that_cufile_refuses_leave_nothing(link: Link, standin: Standin) -> None:
    backend, memory = link.initiator, bytes_of(4096, 1)
    parts = segments_of(*memory.reshape(4, 1024))
    standin.fail("cuFileBufRegister", 5013, after=2)
    with pytest.raises(
        MemoryRegistrationError, match=r"segment 2 of 4 \(DRAM, 1024 .*CU_FILE_CUDA_MEMORY_TYPE_INVALID .*; none was"
    ):
        backend.register(MemoryKind.DRAM, parts)
    assert standin.alive["buffers"] == 0
    file = link.place(np.zeros(8, np.uint8))
    standin.fail("cuFileHandleRegister", 5019)
    with pytest.raises(MemoryRegistrationError, match="CU_FILE_INVALID_FILE_OPEN_FLAG"):
        link.offer(file)
    assert standin.alive["files"] == 0
    assert len(backend.register(MemoryKind.DRAM, parts)) == 4


@pytest.mark.parametrize("code", [5016, 5023, 5036])
def test_memory_that_can_not_be_pinned_is_moved_all_the_same(link: Link, standin: Standin, code: int) -> None:
    memory, far = bytes_of(64, 1), link.place(np.zeros(64, np.uint8))
    standin.fail("cuFileBufRegister", code)
    standin.record()
    request = link.prepare(Operation.WRITE, memory, far, [(0, 0, 64)])
    assert finish(request, request.post()) == Status.DONE
    assert io(standin) == [(64, 0, 0, 0, -1)]
    np.testing.assert_array_equal(far.read(), memory)
    link.initiator.deregister(np.array([0], np.int32))
    link.initiator.close()
    assert "cuFileBufDeregister" not in standin.names  # it may be another's registration


def test_the_same_memory_and_file_are_registered_once(link: Link, standin: Standin) -> None:
    backend, memory = link.initiator, bytes_of(64, 1)
    file = link.place(np.zeros(64, np.uint8))
    near = [backend.register(MemoryKind.DRAM, segments_of(memory)) for _ in range(3)]
    far = backend.register(MemoryKind.FILE, np.array([[0, 32, file.device], [32, 32, file.device]], np.uint64))
    assert (standin.alive["buffers"], standin.alive["files"]) == (1, 1)
    for slots in near[:2]:
        backend.deregister(slots)
    backend.deregister(far[:1])
    assert (standin.alive["buffers"], standin.alive["files"]) == (1, 1)
    backend.deregister(near[2])
    backend.deregister(far[1:])
    backend.deregister(far)  # again: nothing
    assert (standin.alive["buffers"], standin.alive["files"]) == (0, 0)


def test_a_thousand_cycles_leave_nothing(link: Link, standin: Standin) -> None:
    backend, memory, file = link.initiator, bytes_of(4096, 1), link.place(np.zeros(4096, np.uint8))

    def cycle() -> None:
        request_slots = link.register(memory), link.offer(file)
        posting = make_posting(Operation.READ, memory, request_slots[0], file, request_slots[1], [(0, 0, 4096)])
        request = backend.prepare(posting, None)
        assert finish(request, request.post()) == Status.DONE
        for slots in request_slots:
            backend.deregister(slots)

    def state() -> tuple[object, ...]:
        return (
            len([*Path("/proc/self/fd").iterdir()]),
            threading.active_count(),
            standin.alive,
            len(backend._pool.table.resources),  # type: ignore[attr-defined]
            dict(backend._buffers),  # type: ignore[attr-defined]
            dict(backend._files),  # type: ignore[attr-defined]
        )

    cycle()
    before = state()
    for _ in range(1000):
        cycle()
    assert state() == before
    assert before[-2:] == ({}, {})


def in_a_child(check: Callable[[], object]) -> int:
    """Return the exit status of a forked child that does something: 0 if it raised nothing."""
    child = os.fork()
    if child == 0:
        try:
            check()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_in_a_forked_child_it_refuses(link: Link, standin: Standin) -> None:
    """Also while a thread of the parent holds the lock, which nobody ever releases in the child."""
    backend, memory = link.initiator, bytes_of(64, 1)
    assert isinstance(backend, (GdsBackend, GdsMtBackend))
    request = link.prepare(Operation.WRITE, memory, link.place(np.zeros(64, np.uint8)), [(0, 0, 64)])
    assert finish(request, request.post()) == Status.DONE

    def check() -> None:
        for refused in (
            backend.progress,
            backend.wake,
            request.post,
            request.poll,
            request.stop,
            lambda: request.wait(0),
            lambda: backend.register(MemoryKind.DRAM, np.zeros((0, 3), np.uint64)),
        ):
            with pytest.raises(ForkedError, match="spawn"):
                refused()
        with pytest.raises(BackendUnavailableError, match="opened before this process was forked"):
            GdsMtBackend("another")
        backend.close()  # nothing of the parent's is ended
        assert standin.alive["drivers"] == 1

    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with backend._pool.lock:
            locked.set()
            done.wait(PATIENCE)

    holder = threading.Thread(target=hold, name="holder")
    holder.start()
    locked.wait(PATIENCE)
    try:
        assert in_a_child(check) == 0
    finally:
        done.set()
        holder.join()
    assert finish(request, request.post()) == Status.DONE
    backend.close()
    assert "closed" in repr(backend)


def test_with_fewer_threads_it_works_and_with_none_it_says_so(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, room = threading.Thread.start, [0]

    def start_some(thread: threading.Thread) -> None:
        if not room[0]:
            raise RuntimeError("can't start new thread")
        room[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    with linked(GdsMtBackend("agent", thread_count=3), tmp_path) as link:
        memory, far = bytes_of(64, 1), link.place(np.zeros(64, np.uint8))
        request = link.prepare(Operation.WRITE, memory, far, [(0, 0, 64)])
        with pytest.raises(BackendError, match=r"'agent' can't have a thread \(can't start new thread\)"):
            request.post()
        assert request.poll() == Status.IDLE
        room[0] = 1
        assert finish(request, request.post()) == Status.DONE
        np.testing.assert_array_equal(far.read(), memory)
