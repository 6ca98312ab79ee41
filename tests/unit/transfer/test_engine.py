from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.unit.transfer.conftest import Bench, request_of

from trunkline.clock import Deadline
from trunkline.errors import (
    ClosedError,
    DeadlineError,
    ForkedError,
    MemoryInUseError,
    NotificationOverflowError,
    PeerGoneError,
    TransferError,
)
from trunkline.metadata.notification import decode_notification, encode_notification
from trunkline.testing.waiting import eventually
from trunkline.transfer.state import State

if TYPE_CHECKING:
    from trunkline.transfer.handle import TransferHandle


def test_the_progress_thread_sees_ends_that_nobody_waits_for(bench: Bench) -> None:
    seen: list[TransferHandle] = []
    handle = bench.read(0).post()
    handle.add_done_callback(seen.append)
    request_of(handle).complete()
    eventually(lambda: seen)
    assert seen == [handle]
    assert handle.state is State.DONE


def test_only_tagged_transfers_are_finished_and_each_once(bench: Bench) -> None:
    tagged, untagged = bench.read(0, tag=0).post(), bench.read(2).post()
    request_of(tagged).fail("x")
    request_of(untagged).complete()
    untagged.wait()
    eventually(lambda: tagged.state.has_ended)
    assert bench.engine.take_finished() == [tagged]
    assert bench.engine.take_finished() == []
    tagged.post()
    request_of(tagged).complete()
    tagged.wait()
    assert bench.engine.take_finished() == [tagged]


def test_the_promised_notification_of_a_failed_transfer_arrives_as_a_failure(bench: Bench) -> None:
    handle = bench.read(0, notify=b"req-7").post()
    request_of(handle).fail("x")
    with pytest.raises(TransferError):
        handle.wait()
    eventually(lambda: bench.backend.sent)  # whichever thread sees the end first sends it
    ((_, payload, failure),) = bench.backend.sent
    assert (decode_notification(payload), failure) == (("decode-0", b"req-7"), True)


@pytest.mark.parametrize("why", ["it is NIXL's", "it is gone", "there was none"])
def test_nobody_is_told_of_a_failure_when(bench: Bench, why: str) -> None:
    handle = bench.read(0, notify=None if why == "there was none" else b"req-7").post()
    bench.target.hears_failures = why != "it is NIXL's"
    bench.target.gone = "dead" if why == "it is gone" else None
    request_of(handle).fail("x")
    with pytest.raises(TransferError):
        handle.wait()
    assert bench.backend.sent == []


def test_a_good_transfer_sends_its_notification_itself(bench: Bench) -> None:
    handle = bench.read(0, notify=b"req-7").post()
    request_of(handle).complete()
    handle.wait()
    ((_, payload, failure),) = bench.backend.sent
    assert (decode_notification(payload), failure) == (("decode-0", b"req-7"), False)


def test_notifications_are_waited_for(bench: Bench) -> None:
    with pytest.raises(DeadlineError, match="'decode-0' got no notification"):
        bench.engine.wait_notification(Deadline(0.01))
    threading.Timer(0.02, bench.backend.receive, [encode_notification("prefill-0", b"1")]).start()
    assert bench.engine.wait_notification(Deadline(20)).payload == b"1"
    bench.backend.receive(encode_notification("prefill-0", b"2"))
    with pytest.raises(DeadlineError, match="no such notification"):
        bench.engine.wait_notification(Deadline(0.01), lambda note: note.payload == b"3")
    bench.backend.overflow(3)
    with pytest.raises(NotificationOverflowError):
        bench.engine.wait_notification(Deadline(20))


def test_a_broken_connection_is_reported(bench: Bench) -> None:
    broken: list[object] = []
    bench.engine._on_link_failure = broken.append
    handle = bench.read(0).post()
    bench.link.break_connection()
    with pytest.raises(TransferError, match="reset by remote peer"):
        handle.wait()
    eventually(lambda: broken)
    assert broken == [bench.link]


def test_forgetting_a_target_ends_what_is_posted_to_it(bench: Bench) -> None:
    handle = bench.read(0).post()
    bench.engine.forget_target(bench.target, "superseded")
    assert handle.state is State.FAILED
    assert handle.error is not None
    assert handle.error.reason == "superseded"


def test_memory_in_use_is_waited_for(bench: Bench) -> None:
    handle = bench.read(0).post()
    with pytest.raises(MemoryInUseError, match="cancel it before"):
        bench.engine.check_unused(bench.backend.name, bench.slots, Deadline(0.01))
    threading.Timer(0.02, request_of(handle).fail, ["x"]).start()
    bench.engine.check_unused(bench.backend.name, bench.slots, Deadline(20))
    assert handle.state is State.FAILED


def test_timers_of_ended_transfers_are_swept(bench: Bench) -> None:
    handle = bench.read(0, deadline=3600.0)
    for _ in range(500):
        handle.post()
        request_of(handle).complete()
        handle.wait()
    assert len(bench.engine._timers) < 100


def test_draining_cancels_forces_and_closes(bench: Bench) -> None:
    drains, stuck = bench.read(0).post(), bench.read(2).post()
    drains.add_done_callback(lambda _: None)
    threading.Timer(0.005, request_of(drains).complete).start()
    bench.engine.drain(Deadline(5))
    assert drains.state.has_ended
    assert stuck.state is State.CANCELLED
    for use in (lambda: bench.read(4), stuck.post, bench.engine.take_finished):
        with pytest.raises(ClosedError, match="make a new Agent"):
            use()
    bench.engine.close()
    bench.engine.close()
    assert not any(thread.is_alive() for thread in bench.engine._threads)


def test_a_waiter_for_notifications_is_woken_by_the_end(bench: Bench) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            bench.engine.wait_notification(Deadline(20))
        except ClosedError as error:
            errors.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.01)
    bench.engine.drain(Deadline(1))
    bench.engine.close()
    waiter.join(20)
    assert len(errors) == 1


def test_a_forked_engine_says_so(bench: Bench) -> None:
    bench.engine.after_fork()
    with pytest.raises(ForkedError, match="'decode-0' belongs to the parent"):
        bench.engine.take_notifications()
    bench.engine._forked = bench.engine._closed = False  # so that the fixture can close it


def test_messages_to_a_gone_peer_are_refused(bench: Bench) -> None:
    bench.engine.notify(bench.target, b"hello")
    assert len(bench.backend.sent) == 1
    bench.target.gone = "dead"
    with pytest.raises(PeerGoneError):
        bench.engine.notify(bench.target, b"hello")


def test_a_transfer_posted_while_the_engine_drains_ends_with_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = bench.read(0)
    seen: list[TransferHandle] = []
    bench.engine.drain(Deadline(0.0))
    monkeypatch.setattr(bench.engine, "check_open", lambda: None)  # it had looked before
    handle.post().add_done_callback(seen.append)
    bench.engine.close()
    assert seen == [handle]
    assert handle.state is State.FAILED


def test_threads_that_deliver_at_once_keep_the_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, take = bench.backend, bench.backend.take_notifications
    others: list[threading.Thread] = []

    def slowly() -> tuple[list[tuple[bytes, bool]], int]:
        taken = take()
        if taken[0] and not others:
            others.append(threading.Thread(target=bench.engine.take_notifications, name="other"))
            backend.receive(encode_notification("prefill-0", b"second"))
            others[0].start()
            others[0].join(0.1)
        return taken

    monkeypatch.setattr(backend, "take_notifications", slowly)
    backend.receive(encode_notification("prefill-0", b"first"))
    notes = [bench.engine.wait_notification(Deadline(10)).payload for _ in range(2)]
    others[0].join()
    assert notes == [b"first", b"second"]
