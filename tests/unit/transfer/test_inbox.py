from __future__ import annotations

import threading

import pytest

from trunkline.clock import Deadline
from trunkline.errors import NotificationOverflowError
from trunkline.metadata.notification import encode_notification
from trunkline.transfer.inbox import Inbox, Notification


def raw(payload: bytes, sender: str = "prefill-0", *, failure: bool = False) -> tuple[bytes, bool]:
    return encode_notification(sender, payload), failure


def test_what_arrived_is_taken_once_and_in_order() -> None:
    inbox = Inbox()
    inbox.deliver([raw(b"1"), raw(b"2", "prefill-1", failure=True)])
    assert inbox.take() == [Notification("prefill-0", b"1"), Notification("prefill-1", b"2", ok=False)]
    assert inbox.take() == []


def test_a_bound_on_count_is_reported_once_and_nothing_kept_is_lost() -> None:
    inbox = Inbox(limit=2)
    inbox.deliver([raw(b"1"), raw(b"2"), raw(b"3")], dropped=4)
    with pytest.raises(NotificationOverflowError, match="5 notifications were dropped") as caught:
        inbox.take()
    assert caught.value.dropped == 5
    assert [each.payload for each in inbox.take()] == [b"1", b"2"]


def test_a_bound_on_bytes_counts_what_waits_only() -> None:
    inbox = Inbox(limit_bytes=10)
    for _ in range(3):
        inbox.deliver([raw(b"x" * 10)])
        assert len(inbox.take()) == 1
    inbox.deliver([raw(b"x" * 6), raw(b"y" * 6)])
    with pytest.raises(NotificationOverflowError):
        inbox.wait(Deadline(0))
    assert inbox.pop() == Notification("prefill-0", b"x" * 6)


def test_bytes_that_are_no_notification_are_passed_over() -> None:
    inbox = Inbox()
    inbox.deliver([(b"nonsense", False), raw(b"1")])
    assert [each.payload for each in inbox.take()] == [b"1"]


def test_waiting_for_a_match_leaves_the_others() -> None:
    inbox = Inbox()
    inbox.deliver([raw(b"1"), raw(b"2"), raw(b"3")])
    found = inbox.wait(Deadline(0), lambda each: each.payload == b"2")
    assert found is not None
    assert found.payload == b"2"
    assert [each.payload for each in inbox.take()] == [b"1", b"3"]


def test_waiting_ends_at_the_deadline() -> None:
    assert Inbox().wait(Deadline(0.01)) is None


@pytest.mark.parametrize("end", ["deliver", "close"])
def test_a_waiting_thread_is_woken(end: str) -> None:
    inbox = Inbox()
    found: list[Notification | None] = []
    waiter = threading.Thread(target=lambda: found.append(inbox.wait(Deadline(30))))
    waiter.start()
    inbox.deliver([raw(b"1")]) if end == "deliver" else inbox.close()
    waiter.join(30)
    assert not waiter.is_alive()
    assert found == [Notification("prefill-0", b"1") if end == "deliver" else None]


def test_listeners_hear_of_arrivals_until_removed() -> None:
    inbox, heard = Inbox(), []

    def listener() -> None:
        heard.append(len(inbox))

    inbox.add_listener(listener)
    inbox.deliver([raw(b"1")])
    inbox.remove_listener(listener)
    inbox.deliver([raw(b"2")])
    assert heard == [1]
