"""Requests whose calls fail, that are stopped, that outlive their registrations or their backend."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.standin.cufile import VARIANTS, Standin, linked

from trunkline.backend.contract import Operation, ProgressingBackend, Request, Status
from trunkline.backend.plugins.gds import GdsBackend, GdsMtBackend
from trunkline.errors import BackendError
from trunkline.testing.link import Link, bytes_of, finish, make_posting
from trunkline.testing.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = [(at, at, 1024) for at in range(0, 8 * 2048, 2048)]  # apart, so that each is a piece


@pytest.fixture(params=list(VARIANTS))
def link(request: pytest.FixtureRequest, standin: Standin, tmp_path: Path) -> Iterator[Link]:
    backend = GdsBackend("agent") if request.param == "GDS" else GdsMtBackend("agent", thread_count=1)
    with linked(backend, tmp_path) as made:
        yield made


@pytest.fixture
def batches(standin: Standin, tmp_path: Path) -> Iterator[Link]:
    """One batch of two entries at a time."""
    with linked(GdsBackend("agent", batch_pool_size=1, batch_limit=2), tmp_path) as made:
        yield made


def of_eight_rows(link: Link, operation: Operation = Operation.WRITE) -> Request:
    memory = bytes_of(8 * 2048, 1)
    request = link.prepare(operation, memory, link.place(np.zeros(8 * 2048, np.uint8)), ROWS)
    request.owner = memory
    return request


@pytest.mark.parametrize("operation", list(Operation))
def test_an_error_of_the_device_is_told_with_what_landed(link: Link, standin: Standin, operation: Operation) -> None:
    request = of_eight_rows(link, operation)
    call = "read" if operation is Operation.READ else "write"
    standin.fail(f"cuFile{call.capitalize()}", 5, after=3)
    assert finish(request, request.post()) == Status.FAILED
    assert f"cuFile's {call} of 1,024 bytes at offset 6,144 of descriptor " in request.reason
    assert "EIO (Input/output error); " in request.reason
    assert " of 8,192 bytes landed" in request.reason
    assert request.completed == 3
    assert finish(request, request.post()) == Status.DONE  # the same request, once the device is well again
    assert request.reason == ""
    assert request.completed == 8


def test_an_error_of_cufile_is_told_by_its_name(link: Link, standin: Standin) -> None:
    request = of_eight_rows(link)
    standin.fail("cuFileWrite", 5012)
    assert finish(request, request.post()) == Status.FAILED
    assert "CU_FILE_CUDA_POINTER_INVALID (5012); " in request.reason
    assert request.completed == 0


def test_a_file_that_ends_too_early_is_told(link: Link) -> None:
    file = link.place(np.zeros(8 * 2048, np.uint8))
    memory = bytes_of(8 * 2048, 1)
    request = link.prepare(Operation.READ, memory, file, ROWS)
    file.path.write_bytes(bytes(5000))  # type: ignore[attr-defined]
    assert finish(request, request.post()) == Status.FAILED
    # A batch's other entries end before the rest of a short one is asked for again.
    first = "120 bytes at offset 5,000" if isinstance(link.initiator, GdsMtBackend) else "1,024 bytes at offset 6,144"
    assert f"read of {first} of descriptor" in request.reason
    assert "the file ends there; 2,952 of 8,192 bytes landed" in request.reason
    assert request.completed == 2


def test_what_a_batch_could_do_is_kept(batches: Link, standin: Standin) -> None:
    """The second entry of the third batch of two fails: five rows are there, and no fourth batch is submitted."""
    request = of_eight_rows(batches)
    standin.fail("cuFileWrite", 28, after=5)
    standin.record()
    assert finish(request, request.post()) == Status.FAILED
    assert "ENOSPC (No space left on device); 5,120 of 8,192 bytes landed" in request.reason
    assert request.completed == 5
    assert standin.names.count("cuFileBatchIOSubmit") == 3
    assert standin.names[-1] == "cuFileBatchIOCancel"


@pytest.mark.parametrize(("call", "code"), [("cuFileBatchIOSubmit", 5035), ("cuFileBatchIOGetStatus", 5030)])
def test_a_batch_of_which_nothing_is_known_is_given_up(batches: Link, standin: Standin, call: str, code: int) -> None:
    request = of_eight_rows(batches)
    standin.fail(call, code)
    assert finish(request, request.post()) == Status.FAILED
    assert f"{call} returned CU_FILE_" in request.reason
    assert "(batch of 2); 0 of 8,192 bytes landed" in request.reason
    assert standin.alive["batches"] == 0
    standin.fail("cuFileBatchIOSetUp", 5036)  # no new one can be had, once
    assert finish(request, request.post()) == Status.FAILED
    assert "cuFileBatchIOSetUp returned CU_FILE_GPU_MEMORY_PINNING_FAILED (5036)" in request.reason
    assert finish(request, request.post()) == Status.DONE
    assert standin.alive["batches"] == 1


def test_a_batch_that_can_not_be_cancelled_is_waited_for(standin: Standin, tmp_path: Path) -> None:
    with linked(GdsBackend("agent", batch_pool_size=1), tmp_path) as link:
        request = of_eight_rows(link)
        standin.hold()
        standin.fail("cuFileBatchIOCancel", 5030)
        assert request.post() == Status.IN_PROGRESS
        eventually(lambda: standin.held)
        request.stop()
        assert request.wait(0) == Status.IN_PROGRESS
        standin.hold(False)
        assert finish(request, Status.IN_PROGRESS) == Status.DONE


def test_stopped_it_is_quiet_once_what_runs_has_ended(link: Link, standin: Standin) -> None:
    request = of_eight_rows(link)
    standin.hold()
    assert request.post() == Status.IN_PROGRESS
    eventually(lambda: standin.held)
    request.stop()
    request.stop()
    if isinstance(link.initiator, GdsMtBackend):  # a plain call can't be cancelled
        assert request.wait(0) == Status.IN_PROGRESS
        standin.hold(False)
    assert finish(request, Status.IN_PROGRESS) == Status.STOPPED  # a batch is cancelled while its I/O is held
    assert request.completed == (1 if isinstance(link.initiator, GdsMtBackend) else 0)
    standin.hold(False)
    request.stop()  # without effect
    assert finish(request, request.post()) == Status.DONE


def test_a_stopped_one_that_waits_its_turn_ends_at_once(link: Link, standin: Standin) -> None:
    others = [of_eight_rows(link) for _ in range(16)]
    request = of_eight_rows(link)
    standin.hold()
    for other in others:
        other.post()
    eventually(lambda: standin.held == (1 if isinstance(link.initiator, GdsMtBackend) else 16))
    assert request.post() == Status.IN_PROGRESS
    request.stop()
    assert request.poll() == Status.STOPPED
    assert request.completed == 0
    standin.hold(False)
    assert [finish(other, Status.IN_PROGRESS) for other in others] == [Status.DONE] * 16


def test_cancelling_one_request_leaves_the_others(link: Link, standin: Standin) -> None:
    requests = [of_eight_rows(link) for _ in range(3)]
    standin.hold()
    for request in requests:
        request.post()
    eventually(lambda: standin.held)
    requests[0].stop()
    standin.hold(False)
    ends = [finish(request, Status.IN_PROGRESS) for request in requests]
    assert ends == [Status.STOPPED, Status.DONE, Status.DONE]


def test_a_wait_that_runs_out_leaves_it_running(link: Link, standin: Standin) -> None:
    request = of_eight_rows(link)
    standin.hold()
    request.post()
    eventually(lambda: standin.held)
    assert request.wait(time.monotonic() + 0.01) == Status.IN_PROGRESS
    backend = link.initiator
    assert isinstance(backend, ProgressingBackend)
    assert not backend.progress()
    standin.hold(False)
    backend.run(time.monotonic() + PATIENCE)
    assert backend.progress()
    assert backend.take_finished() == [request]
    assert not backend.progress()


def test_deregistered_while_posted_it_runs_to_its_end(link: Link, standin: Standin) -> None:
    memory, file = bytes_of(8 * 2048, 1), link.place(np.zeros(8 * 2048, np.uint8))
    near, far = link.register(memory), link.offer(file)
    request = link.initiator.prepare(make_posting(Operation.WRITE, memory, near, file, far, ROWS), None)
    standin.hold()
    request.post()
    eventually(lambda: standin.held)
    link.initiator.deregister(near)
    link.initiator.deregister(far)
    assert (standin.alive["buffers"], standin.alive["files"]) == (1, 1)
    standin.hold(False)
    assert finish(request, Status.IN_PROGRESS) == Status.DONE
    assert (standin.alive["buffers"], standin.alive["files"]) == (0, 0)
    assert request.post() == Status.FAILED
    assert "registered no more" in request.reason


def test_closing_waits_until_cufile_has_let_go(link: Link, standin: Standin) -> None:
    requests = [of_eight_rows(link) for _ in range(2)]
    standin.hold()
    for request in requests:
        request.post()
    eventually(lambda: standin.held)
    standin.record()
    closer = threading.Thread(target=link.initiator.close, name="closer")
    runner = threading.Thread(target=link.initiator.close, name="runner")
    closer.start()
    runner.start()
    if isinstance(link.initiator, GdsMtBackend):
        eventually(lambda: requests[1].poll() == Status.FAILED)  # which waited its turn
        assert requests[0].poll() == Status.IN_PROGRESS
        assert closer.is_alive()
        assert "cuFileBufDeregister" not in standin.names
        standin.hold(False)
    closer.join(PATIENCE)
    runner.join(PATIENCE)
    assert [request.poll() for request in requests] == [Status.FAILED] * 2
    assert all("backend of agent 'agent' was closed; " in request.reason for request in requests)
    assert standin.names[-1] == "cuFileDriverClose"
    assert not any(standin.alive.values())
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("trunkline-gds")]


def test_what_cufile_does_not_deregister_is_logged(
    link: Link, standin: Standin, caplog: pytest.LogCaptureFixture
) -> None:
    memory = bytes_of(64, 1)
    slots = link.register(memory)
    standin.fail("cuFileBufDeregister", 5022)
    link.initiator.deregister(slots)
    assert "cuFileBufDeregister returned CU_FILE_INVALID_VALUE (5022)" in caplog.text


def test_a_gpu_that_is_refused_while_it_moves_fails_the_request(
    link: Link, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def current(self, device: int) -> None:
            raise BackendError(f"GPU {device} fell off the bus")

    request = of_eight_rows(link)
    library = link.initiator._library  # type: ignore[attr-defined]
    cuda = library.cuda
    monkeypatch.setattr(library, "cuda", Broken())
    assert finish(request, request.post()) == Status.FAILED
    assert request.reason.startswith("GPU -1 fell off the bus; 0 of 8,192")
    monkeypatch.setattr(library, "cuda", cuda)
