from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("the POSIX backend is for Linux only", allow_module_level=True)

from tests.unit.backend.posix.bench import Bench, file_posting

from trunkline.backend.contract import Operation, Status
from trunkline.backend.plugins.posix import PosixBackend
from trunkline.backend.plugins.posix._native import File, Job, Pool
from trunkline.backend.registry import create_backend
from trunkline.errors import (
    BackendError,
    BackendUnavailableError,
    ClosedError,
    ConfigurationError,
    ForkedError,
    MemoryRegistrationError,
    NotRegisteredError,
)
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import bytes_of, finish, make_posting, segments_of
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture
def bench() -> Iterator[Bench]:
    backend = PosixBackend("agent", threads=2)
    yield Bench(backend)
    backend.close()


def test_the_registry_knows_it() -> None:
    backend = create_backend("POSIX", "agent", fsync=True)
    assert backend.name == "POSIX"
    backend.close()
    with pytest.raises(ConfigurationError, match="threads=0"):
        create_backend("POSIX", "agent", threads=0)


def test_threads_that_can_not_be_had_are_an_error_that_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def start_some(thread: threading.Thread) -> None:
        if thread.name.endswith("-2"):
            raise RuntimeError("can't start new thread")
        start(thread)

    before = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", start_some)
    with pytest.raises(BackendUnavailableError, match="4 threads"):
        PosixBackend("agent", threads=4)
    assert threading.active_count() == before


def test_a_write_extends_the_file_and_leaves_a_hole(bench: Bench, tmp_path: Path) -> None:
    memory = bytes_of(300, 1)
    request = bench.run(Operation.WRITE, memory, f"rw,create:{tmp_path / 'new'}", [(0, 1000, 300)])
    assert request.poll() == Status.DONE
    assert (tmp_path / "new").read_bytes() == bytes(1000) + bytes(memory)


def test_a_read_past_the_end_fails_and_says_what_landed(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(bytes([7]) * 1500)
    memory = np.zeros(3000, np.uint8)
    request = bench.run(Operation.READ, memory, f"ro:{path}", [(2000, 0, 500), (1000, 500, 900), (0, 1400, 600)])
    assert request.poll() == Status.FAILED
    assert request.reason == (
        f"READ of file '{path}' at offset 1,500 found the file's end (it has 1,500 bytes); 1,500 of 2,000 bytes landed"
    )
    assert request.completed == 0  # all three rows are one system call
    assert memory.sum() == 7 * 1500


def test_what_a_descriptor_does_not_allow_is_refused_before_anything_moves(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8))
    with pytest.raises(BackendError, match=r"file' can't be written: it was opened for reading only"):
        bench.prepare(Operation.WRITE, np.ones(8, np.uint8), f"ro:{path}", [(0, 0, 8)])
    device = os.open(path, os.O_WRONLY)
    with pytest.raises(BackendError, match=r"'mine' can't be read: it was opened for writing only"):
        bench.prepare(Operation.READ, np.ones(8, np.uint8), "mine", [(0, 0, 8)], device=device)
    os.close(device)


def test_the_descriptor_may_be_closed_and_its_number_reused(bench: Bench, tmp_path: Path) -> None:
    device = os.open(tmp_path / "mine", os.O_RDWR | os.O_CREAT)
    memory = bytes_of(64, 1)
    request = bench.prepare(Operation.WRITE, memory, "", [(0, 0, 64)], device=device)
    os.close(device)
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    assert other == device
    assert finish(request, request.post()) == Status.DONE
    assert (tmp_path / "mine").read_bytes() == bytes(memory)
    assert (tmp_path / "other").read_bytes() == b""
    os.close(other)


def test_one_request_may_use_several_files(bench: Bench, tmp_path: Path) -> None:
    memory = bytes_of(4000, 1)
    near = bench.backend.register(MemoryKind.DRAM, segments_of(memory))
    names = [f"rw,create:{tmp_path / str(number)}" for number in range(4)]
    far = bench.backend.register(
        MemoryKind.FILE, np.array([[0, 1000, number] for number in range(4)], np.uint64), names
    )
    rows = [(1000 * row, 0, 1000) for row in range(4)]
    posting = file_posting(Operation.WRITE, memory, near, far[[2, 0, 3, 1]], rows)
    request = bench.backend.prepare(posting, None)
    assert finish(request, request.post()) == Status.DONE
    for row, number in enumerate([2, 0, 3, 1]):
        assert (tmp_path / str(number)).read_bytes() == bytes(memory[1000 * row : 1000 * row + 1000])


def aligned(size: int) -> NDArray[np.uint8]:
    memory = np.zeros(size + 4096, np.uint8)
    return memory[-memory.ctypes.data % 4096 :][:size]


def test_direct_transfers_may_have_any_memory_and_reads_any_range(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "file"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT))
    except OSError:
        pytest.skip("this file system has no direct I/O")
    data = aligned(5 << 20)
    data[:] = bytes_of(5 << 20, 1)
    assert bench.run(Operation.WRITE, data, f"rw,direct:{path}", [(0, 0, 5 << 20)]).poll() == Status.DONE
    crooked = aligned((1 << 20) + 8)[3:]  # no piece of it is aligned
    crooked[:] = bytes_of(len(crooked), 2)
    rows = [(row, 2 * 4096 + row, 1) for row in range(4096)]  # one block of the file, in pieces of one byte
    assert bench.run(Operation.WRITE, crooked, f"rw,direct:{path}", rows).poll() == Status.DONE
    data[8192:12288] = crooked[:4096]
    np.testing.assert_array_equal(np.fromfile(path, np.uint8), data)
    back = np.zeros(5 << 20, np.uint8)
    rows = [(1, 1, (5 << 20) - 2)]
    assert bench.run(Operation.READ, back, f"ro,direct:{path}", rows).poll() == Status.DONE
    np.testing.assert_array_equal(back[1:-1], data[1:-1])
    assert back[0] == back[-1] == 0


def test_a_direct_read_ends_where_the_file_ends(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes([5]) * 5000)
    memory = np.zeros(8192, np.uint8)
    assert bench.run(Operation.READ, memory, f"ro,direct:{path}", [(0, 4090, 910)]).poll() == Status.DONE
    assert memory.sum() == 5 * 910
    request = bench.run(Operation.READ, memory, f"ro,direct:{path}", [(0, 0, 8192)])
    assert request.poll() == Status.FAILED
    assert "at offset 5,000 found the file's end (it has 5,000 bytes); 5,000 of 8,192" in request.reason
    memory[:] = 9
    request = bench.run(Operation.READ, memory, f"ro,direct:{path}", [(0, 1, 8000)])  # through the aligned buffer
    assert "5,000 bytes); 4,999 of 8,000" in request.reason
    assert (memory[:4999] == 5).all()
    assert (memory[4999:] == 9).all()


def test_a_direct_write_of_part_of_a_block_is_refused(bench: Bench, tmp_path: Path) -> None:
    name = f"rw,direct,create:{tmp_path / 'file'}"
    for rows in ([(0, 0, 100)], [(0, 100, 4096)], [(0, 0, 4096), (4096, 8192, 4097)]):
        with pytest.raises(BackendError, match=r"opened with O_DIRECT.*must begin and end at multiples of"):
            bench.prepare(Operation.WRITE, np.zeros(8193, np.uint8), name, rows)
    assert (tmp_path / "file").read_bytes() == b""


def test_only_memory_against_files_is_prepared(bench: Bench) -> None:
    memory = np.zeros(8, np.uint8)
    slots = bench.backend.register(MemoryKind.DRAM, segments_of(memory))
    posting = make_posting(Operation.READ, memory, slots, memory, slots, [(0, 0, 8)])
    with pytest.raises(BackendError, match="between memory and files"):
        bench.backend.prepare(posting, None)
    bench.backend.deregister(slots)
    with pytest.raises(NotRegisteredError):
        bench.backend.prepare(posting, None)
    with pytest.raises(MemoryRegistrationError, match="VRAM"):
        bench.backend.register(MemoryKind.VRAM, segments_of(memory))


def test_notifications_are_refused(bench: Bench, tmp_path: Path) -> None:
    request = bench.prepare(Operation.WRITE, np.ones(8, np.uint8), f"rw,create:{tmp_path / 'file'}", [(0, 0, 8)])
    with pytest.raises(BackendError, match="no notifications"):
        request.post(b"done")
    assert request.poll() == Status.IDLE


def test_queries_tell_size_and_time_of_what_is_there(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(123))
    os.utime(path, ns=(0, 1_700_000_000_250_000_000))
    names = [str(path), f"rw,create:{path}", str(tmp_path / "missing"), f"{path}/below"]
    found = bench.backend.query(MemoryKind.FILE, names)
    assert found[0] == found[1] == {"size": "123", "mtime": "1700000000", "mode": str(path.stat().st_mode)}
    assert found[2:] == [None, None]
    with pytest.raises(BackendError, match="ENAMETOOLONG"):
        bench.backend.query(MemoryKind.FILE, ["/" + "a" * 300])
    with pytest.raises(BackendError, match="OBJECT"):
        bench.backend.query(MemoryKind.OBJECT, ["key"])


def test_a_caller_that_waits_can_be_interrupted() -> None:
    class SignalError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise SignalError

    pool = Pool("agent")  # nobody works: its jobs don't end
    file = File(pool, os.open("/dev/null", os.O_RDONLY), 0)
    one, none = np.ones(1, np.int64), np.zeros(1, np.int64)
    pieces, byte = np.zeros((1, 2), np.uint64), np.zeros(1, np.uint8)
    job = Job(pool, [file], False, False, none.astype(np.int32), none, one, np.array([0, 1]), byte, pieces, byte.copy())
    job.post(None)
    waits = threading.Event()

    def send() -> None:
        waits.wait()
        os.kill(os.getpid(), signal.SIGUSR1)

    sender = threading.Thread(target=send, name="sender")
    before = signal.signal(signal.SIGUSR1, interrupt)
    sender.start()
    try:
        with pytest.raises(SignalError):  # noqa: PT012  the signal may come between the two
            waits.set()
            job.wait(time.monotonic() + 10 * PATIENCE)
        sender.join(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert job.wait(0) == Status.IN_PROGRESS
    pool.close()
    file.close()
    assert job.poll() == Status.FAILED


def test_a_forked_child_is_told_and_closes_nothing(bench: Bench, tmp_path: Path) -> None:
    """Also while a thread of the parent holds the lock, which nobody ever releases in the child."""
    request = bench.prepare(Operation.WRITE, np.ones(8, np.uint8), f"rw,create:{tmp_path / 'file'}", [(0, 0, 8)])
    with bench.backend._lock:
        child = os.fork()
        if child == 0:
            try:
                for refused in (
                    request.post,
                    bench.backend.progress,
                    request.poll,
                    request.stop,
                    lambda: bench.backend.deregister(bench.near),
                ):
                    with pytest.raises(ForkedError):
                        refused()
                bench.backend.close()
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert finish(request, request.post()) == Status.DONE


def test_a_closed_backend_refuses_everything() -> None:
    backend = PosixBackend("agent")
    runner = threading.Thread(target=backend.run, args=(time.monotonic() + 10 * PATIENCE,), name="run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)  # the runner is told by ClosedError too
        runner.start()
        backend.close()
        runner.join(PATIENCE)
    assert not runner.is_alive()
    for refused in (backend.progress, backend.wake, backend.take_finished, lambda: backend.query(MemoryKind.FILE, [])):
        with pytest.raises(ClosedError, match="'agent'"):
            refused()
    assert "closed" in repr(backend)
