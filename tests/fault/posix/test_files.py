"""Devices that are full or broken, files that change or go, requests that are ended early."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("the POSIX backend is for Linux only", allow_module_level=True)

from tests.unit.backend.posix.bench import Bench, file_posting

from trunkline.backend.contract import Operation, Posting, Status
from trunkline.backend.plugins.posix import PosixBackend
from trunkline.errors import ClosedError, TransferStateError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import bytes_of, finish, segments_of
from trunkline.testing.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


class Held(threading.Thread):
    """A worker that starts only when the test says so: what is posted until then stays posted."""

    made: list[Held]

    def start(self) -> None:
        self.made.append(self)

    def release(self) -> None:
        super().start()


@pytest.fixture
def bench() -> Iterator[Bench]:
    backend = PosixBackend("agent", threads=2)
    yield Bench(backend)
    backend.close()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    Held.made = []
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Held)
        backend = PosixBackend("agent", threads=1)
    yield Bench(backend)
    backend.close()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "full"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"file systems can't be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_device_that_is_full_says_how_much_landed(held: Bench, full: Path) -> None:
    Held.made[0].release()  # one thread: several would share what room there is
    bench = held
    memory = bytes_of(3 * MIB, 1)
    rows = [(at, at, MIB // 2) for at in range(0, 3 * MIB, MIB // 2)]
    request = bench.run(Operation.WRITE, memory, f"rw,create:{full / 'file'}", rows)
    assert request.poll() == Status.FAILED
    assert (
        f"WRITE of file '{full}/file' at offset 1,048,576 failed with ENOSPC: No space left on device" in request.reason
    )
    assert f"{MIB:,} of {3 * MIB:,} bytes landed" in request.reason
    assert request.completed == 2
    (full / "file").write_bytes(b"")  # room again
    small = bench.run(Operation.WRITE, memory, f"rw:{full / 'file'}", [(0, 0, MIB // 2)])
    assert small.poll() == Status.DONE


def test_several_threads_fill_a_device_and_count_right(bench: Bench, full: Path) -> None:
    memory = np.ones(3 * MIB, np.uint8)
    request = bench.run(Operation.WRITE, memory, f"rw,create:{full / 'file'}", [(0, 0, 3 * MIB)])
    assert request.poll() == Status.FAILED
    assert f"ENOSPC: No space left on device; {MIB:,} of {3 * MIB:,} bytes landed" in request.reason
    assert int(np.fromfile(full / "file", np.uint8).sum()) == MIB


def test_a_size_limit_of_the_process_is_an_error_not_a_signal(tmp_path: Path) -> None:
    code = """
import resource, sys
import numpy as np
from tests.unit.backend.posix.bench import Bench
from trunkline.backend.contract import Operation, Posting, Status
from trunkline.backend.plugins.posix import PosixBackend
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
backend = PosixBackend("agent")
request = Bench(backend).run(Operation.WRITE, np.ones(3 << 20, np.uint8), "rw,create:" + sys.argv[1], [(0, 0, 3 << 20)])
assert request.poll() == Status.FAILED
print(request.reason)
backend.close()
"""
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout
    assert "EFBIG: File too large" in told
    assert (tmp_path / "file").stat().st_size <= 1_000_000


@pytest.mark.parametrize("fsync", [False, True])
def test_a_device_that_does_not_confirm_fails_a_write_that_asked_for_it(tmp_path: Path, fsync: bool) -> None:
    """/dev/zero takes what it is written, has all that is read, and answers fdatasync with EINVAL."""
    memory, path = bytes_of(3 * MIB, 1), tmp_path / "file"
    with contextlib.closing(PosixBackend("agent", fsync=fsync)) as backend, Path("/dev/zero").open("r+b") as zero:
        bench = Bench(backend)
        write, read = (
            bench.prepare(operation, memory, f"rw,create:{path}", [(0, 0, 3 * MIB)])
            for operation in (Operation.WRITE, Operation.READ)
        )
        os.dup2(zero.fileno(), write._files[0].native.descriptor)  # both have the same
        assert finish(write, write.post()) == (Status.FAILED if fsync else Status.DONE)
        reason = (
            f"fdatasync of file '{path}' failed with EINVAL: Invalid argument; 3,145,728 of 3,145,728 bytes landed, "
            "but the device may not have them"
        )
        assert write.reason == (reason if fsync else "")
        assert write.completed == 1
        assert finish(read, read.post()) == Status.DONE


def test_a_device_that_breaks_says_where(bench: Bench) -> None:
    """The kernel answers reads of a process's unmapped memory with EIO, after what is still mapped."""
    page = 4096
    memory = np.zeros(64 * page, np.uint8)
    mapped = mmap.mmap(-1, 2 * page)
    mapped.write(b"\7" * 2 * page)
    start = np.frombuffer(mapped, np.uint8).ctypes.data
    request = bench.prepare(Operation.READ, memory, "ro:/proc/self/mem", [(0, 0, 1)], size=(1 << 63) - 1)
    assert finish(request, request.post()) == Status.FAILED
    assert "READ of file '/proc/self/mem' at offset 0 failed with EIO: Input/output error; 0 of 1" in request.reason
    request = bench.prepare(Operation.READ, memory, "ro:/proc/self/mem", [(0, start, 2 * page)], size=(1 << 63) - 1)
    assert finish(request, request.post()) == Status.DONE
    assert memory.sum() == 7 * 2 * page


def test_memory_that_is_not_there_is_an_error_not_a_signal(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(8192))
    near = bench.backend.register(MemoryKind.DRAM, np.array([[4096, 8192, 0]], np.uint64))
    names = [f"ro:{tmp_path / 'file'}"]
    far = bench.backend.register(MemoryKind.FILE, np.array([[0, 8192, 0]], np.uint64), names)
    where, offset, length = (np.array([value], np.uint64) for value in (4096, 0, 8192))
    request = bench.backend.prepare(Posting(Operation.READ, where, offset, length, near, far), None)
    assert finish(request, request.post()) == Status.FAILED
    assert "EFAULT" in request.reason


def test_a_file_that_is_cut_while_it_is_read(held: Bench, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4 * MIB))
    request = held.prepare(Operation.READ, np.ones(4 * MIB, np.uint8), f"ro:{path}", [(0, 0, 4 * MIB)])
    request.post()
    os.truncate(path, MIB + 5)
    Held.made[0].release()
    assert request.wait(time.monotonic() + PATIENCE) == Status.FAILED
    assert "at offset 1,048,581 found the file's end (it has 1,048,581 bytes); 1,048,581 of 4,194,304" in request.reason


def test_after_a_failure_nothing_more_is_begun(held: Bench, tmp_path: Path) -> None:
    names = [f"ro:{tmp_path / name}" for name in ("cut", "whole")]
    for name in ("cut", "whole"):
        (tmp_path / name).write_bytes(b"\1" * 2 * MIB)
    memory = np.zeros(4 * MIB, np.uint8)
    near = held.backend.register(MemoryKind.DRAM, segments_of(memory))
    far = held.backend.register(
        MemoryKind.FILE, np.array([[0, 2 * MIB, number] for number in range(2)], np.uint64), names
    )
    rows = [(0, 0, 2 * MIB), (2 * MIB, 0, 2 * MIB)]
    request = held.backend.prepare(file_posting(Operation.READ, memory, near, far, rows), None)
    request.post()
    os.truncate(tmp_path / "cut", 0)
    Held.made[0].release()
    assert request.wait(time.monotonic() + PATIENCE) == Status.FAILED
    assert f"0 of {4 * MIB:,} bytes landed" in request.reason
    later = held.run(Operation.READ, np.zeros(MIB, np.uint8), f"ro:{tmp_path / 'whole'}", [(0, 0, MIB)])
    assert later.poll() == Status.DONE  # by then the only thread has come past whatever was left of the first
    assert not memory.any()


def test_a_file_that_is_unlinked_is_still_the_file(held: Bench, tmp_path: Path) -> None:
    path = tmp_path / "file"
    device = os.open(path, os.O_RDWR | os.O_CREAT)
    memory = bytes_of(MIB, 1)
    request = held.prepare(Operation.WRITE, memory, str(path), [(0, 0, MIB)], device=device)
    request.post()
    path.unlink()
    path.write_bytes(b"another")
    Held.made[0].release()
    assert request.wait(time.monotonic() + PATIENCE) == Status.DONE
    assert os.pread(device, MIB, 0) == bytes(memory)
    assert path.read_bytes() == b"another"
    os.close(device)


def test_a_file_deregistered_while_it_is_written_is_closed_after(held: Bench, tmp_path: Path) -> None:
    before = descriptors()
    memory = bytes_of(8 * MIB, 1)
    request = held.prepare(Operation.WRITE, memory, f"rw,create:{tmp_path / 'file'}", [(0, 0, 8 * MIB)])
    request.post()
    held.backend.deregister(held.far)
    assert len(descriptors()) == len(before) + 1  # the request needs it
    Held.made[0].release()
    assert request.wait(time.monotonic() + PATIENCE) == Status.DONE
    assert descriptors() == before
    assert (tmp_path / "file").read_bytes() == bytes(memory)
    assert request.post() == Status.FAILED
    assert "not registered any more" in request.reason


def test_one_that_runs_without_its_file_is_not_quiet_before_it_has_ended(held: Bench, tmp_path: Path) -> None:
    memory = bytes_of(MIB, 1)
    request = held.prepare(Operation.WRITE, memory, f"rw,create:{tmp_path / 'file'}", [(0, 0, MIB)])
    request.post()
    held.backend.deregister(held.far)
    with pytest.raises(TransferStateError):
        request.post()
    assert request.poll() == Status.IN_PROGRESS
    Held.made[0].release()
    assert request.wait(time.monotonic() + PATIENCE) == Status.DONE


def test_what_is_stopped_before_it_began_moves_nothing_and_is_reported(held: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(MIB))
    request = held.prepare(Operation.WRITE, np.ones(MIB, np.uint8), f"rw:{tmp_path / 'file'}", [(0, 0, MIB)])
    request.post()
    request.stop()
    assert held.backend.progress()
    assert held.backend.take_finished() == [request]
    assert request.poll() == Status.STOPPED
    assert (request.completed, request.reason) == (0, "")
    assert not any((tmp_path / "file").read_bytes())
    Held.made[0].release()
    assert finish(request, request.post()) == Status.DONE
    request.stop()
    assert request.poll() == Status.DONE


def test_requests_take_turns(held: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(64 * MIB))
    large = held.prepare(Operation.READ, np.ones(64 * MIB, np.uint8), f"ro:{tmp_path / 'file'}", [(0, 0, 64 * MIB)])
    small = held.prepare(Operation.READ, np.ones(MIB, np.uint8), f"ro:{tmp_path / 'file'}", [(0, 0, MIB)])
    large.post()
    small.post()
    Held.made[0].release()
    assert small.wait(time.monotonic() + PATIENCE) == Status.DONE
    assert large.wait(time.monotonic() + PATIENCE) == Status.DONE
    assert small.total_ns < large.total_ns


def test_closing_ends_what_is_posted(held: Bench, tmp_path: Path) -> None:
    request = held.prepare(Operation.WRITE, np.ones(MIB, np.uint8), f"rw,create:{tmp_path / 'file'}", [(0, 0, MIB)])
    request.post()
    held.backend.close()
    assert request.poll() == Status.FAILED
    assert request.reason == f"the backend was closed; 0 of {MIB:,} bytes landed"
    assert (tmp_path / "file").read_bytes() == b""


def test_closing_under_use(tmp_path: Path) -> None:
    memory = np.ones(4 * MIB, np.uint8)
    for round_number in range(30):
        backend = PosixBackend("agent", threads=2)
        bench = Bench(backend)
        name = f"rw,create:{tmp_path / 'file'}"
        requests = [bench.prepare(Operation.WRITE, memory, name, [(0, 0, memory.nbytes)]) for _ in range(4)]
        for request in requests:
            request.post()
        if round_number % 3:
            requests[0].wait(time.monotonic() + 0.001 * round_number)
        backend.close()
        assert {request.poll() for request in requests} <= {Status.DONE, Status.FAILED}


def test_posting_and_registering_while_it_is_closed(tmp_path: Path) -> None:
    """Each call works or says that the backend is closed, every request ends, and no descriptor is left."""
    before, names = descriptors(), [f"rw,create:{tmp_path / str(number)}" for number in range(4)]
    refused: list[BaseException] = []

    def work(bench: Bench, name: str) -> None:
        memory = np.ones(8, np.uint8)
        try:
            while True:
                request = bench.prepare(Operation.WRITE, memory, name, [(0, 0, 8)])
                request.post()
                assert request.wait(time.monotonic() + PATIENCE) in {Status.DONE, Status.FAILED}
                bench.backend.deregister(bench.far)
        except Exception as error:
            refused.append(error)

    for _ in range(50):
        backend = PosixBackend("agent", threads=1)
        threads = [threading.Thread(target=work, args=(Bench(backend), name), name=name) for name in names]
        for thread in threads:
            thread.start()
        eventually(lambda: all(Path(name.partition(":")[2]).exists() for name in names))
        backend.close()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert [error for error in refused if not isinstance(error, ClosedError)] == []
    assert descriptors() == before


def test_many_requests_from_many_threads_each_end_once(tmp_path: Path) -> None:
    """Some are polled, some stopped, some left to be taken; the files hold what the last finished write put there."""
    backend = PosixBackend("agent", threads=3)
    ended: list[object] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        bench, memory = Bench(backend), bytes_of(300_000, seed)
        rows = [(at, at * 2, 3000) for at in range(0, 300_000, 3000)]
        write = bench.prepare(Operation.WRITE, memory, f"rw,create:{tmp_path / str(seed)}", rows)
        back = np.zeros_like(memory)
        read = bench.prepare(Operation.READ, back, f"ro:{tmp_path / str(seed)}", rows)
        for _ in range(100):
            write.post()
            if random.integers(4) == 0:
                write.stop()
            status = write.wait(time.monotonic() + PATIENCE)
            if status == Status.DONE:
                back[:] = 0
                read.post()
                while read.poll() == Status.IN_PROGRESS:
                    pass
                ended.append(bytes(back) == bytes(memory))
            else:
                ended.append(status == Status.STOPPED)

    threads = [threading.Thread(target=work, args=(seed,), name=f"work-{seed}") for seed in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        backend.run(time.monotonic() + 0.01)
        backend.take_finished()
    assert ended == [True] * 400
    assert not backend.progress()
    backend.close()


def test_a_thousand_cycles_leave_nothing_behind(tmp_path: Path) -> None:
    def count() -> tuple[int, int]:
        return len(descriptors()), threading.active_count()

    before = count()
    backend = PosixBackend("agent")
    memory = np.ones(4096, np.uint8)
    path = tmp_path / "file"

    def cycle() -> None:
        near = backend.register(MemoryKind.DRAM, segments_of(memory))
        bench = Bench(backend)
        request = bench.run(Operation.WRITE, memory, f"rw,create:{path}", [(0, 0, 4096)])
        assert request.poll() == Status.DONE
        backend.deregister(near)
        backend.deregister(bench.near)
        backend.deregister(bench.far)

    for _ in range(100):
        cycle()
    settled, rss = count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1000):
        cycle()
    assert count() == settled
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss < 2048  # KiB
    assert backend._segments.count == 0
    backend.close()
    assert count() == before
