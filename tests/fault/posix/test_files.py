"""Devices that are full or broken, files that change or go."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("the POSIX backend is for Linux only", allow_module_level=True)

from tests.fault.posix.conftest import MIB, Held
from tests.unit.backend.posix.bench import Bench, file_posting

from trunkline.backend.contract import Operation, Posting, Status
from trunkline.backend.plugins.posix import PosixBackend
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import bytes_of, finish, segments_of
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator


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
