"""Messages whose calls are made again, and watches that lag behind each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trunkline.errors import ConfigurationError, DeadlineError, GroupFailedError

if TYPE_CHECKING:
    from tests.workers import Workers

    from trunkline.coordination import Group
    from trunkline.store.contract import Store

LARGE = 200_000


def test_a_large_message_that_was_received_late_is_not_sent_twice(workers: Workers, store: Store) -> None:
    def send(group: Group) -> Any:
        with pytest.raises(DeadlineError):
            group.send(1, bytes(LARGE), timeout=0)
        group.barrier()
        group.barrier()
        group.send(1, bytes(LARGE))
        group.barrier()
        return [entry.key for entry in store.list("/trunkline/", timeout=1).entries if "/message/" in entry.key]

    def receive(group: Group) -> bool:
        group.barrier()
        is_whole = group.recv(0) == bytes(LARGE)
        group.barrier()
        group.barrier()
        return is_whole

    assert workers.together(send, receive) == [[], True]


def test_a_receipt_counts_though_the_watch_of_who_is_there_is_ahead_of_it(workers: Workers, store: Store) -> None:
    def send(group: Group) -> str:
        link = group._link
        link._inbox.close()
        link._inbox = store.watch(link.key.inbox(0), prefix=True, after=10**6, wake=link._wake)  # lags for ever
        group.send(1, bytes(LARGE))
        return "received"

    def receive_and_leave(group: Group) -> bool:
        return group.recv(0) == bytes(LARGE)

    assert workers.together(send, receive_and_leave) == ["received", True]


@pytest.mark.parametrize("data", [3, "text", None, [1, 2]], ids=str)
def test_what_is_not_bytes_is_refused(workers: Workers, data: Any) -> None:
    def send(group: Group) -> None:
        group.send(1, data)

    sender, receiver = workers.together(send, lambda group: group.recv(0))
    assert isinstance(sender, ConfigurationError)
    assert f"send to rank 1: a {type(data).__name__} is not bytes" in str(sender)
    assert isinstance(receiver, GroupFailedError)
