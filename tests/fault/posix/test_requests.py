"""Requests that are ended early, that many threads post, and that outlast their file or their backend."""

from __future__ import annotations

import resource
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("the POSIX backend is for Linux only", allow_module_level=True)

from tests.fault.posix.conftest import MIB, Held, descriptors
from tests.unit.backend.posix.bench import Bench

from trunkline.backend.contract import Operation, Status
from trunkline.backend.plugins.posix import PosixBackend
from trunkline.errors import ClosedError, TransferStateError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import bytes_of, finish, segments_of
from trunkline.testing.waiting import PATIENCE, eventually


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
