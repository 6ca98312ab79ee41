from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.coordination.board import MAX_KEYS, Board
from trunkline.coordination.key import MAX_WORKERS, GroupKey
from trunkline.coordination.mailbox import WINDOW
from trunkline.coordination.record import Parcel, RunRecord, SeatRecord, encode_parcel, encode_record
from trunkline.errors import (
    CollectiveMismatchError,
    GroupError,
    GroupFailedError,
    MetadataDecodeError,
    SeatLostError,
    WorkerLeftError,
    WorkerLostError,
)
from trunkline.metadata.presence import ProcessRecord
from trunkline.store.contract import Changed, Entry, Interrupted, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trunkline.store.contract import WatchEvent

GROUP = GroupKey("g")
RUN = GROUP.of_run("0" * 32)
LEASES = (10, 11, 12)
ALL = 0b111


def entry(key: str, value: bytes, lease: int) -> Entry:
    return Entry(key, value, 1, 1, lease)


def run(members: tuple[int, ...] = LEASES, token: str = RUN.token) -> Entry:
    return entry(GROUP.run, encode_record(RunRecord(token, 3, 10, members)), 10)


def seat(rank: int, *, left: bool = False, lease: int = 0) -> Entry:
    record = SeatRecord(ProcessRecord(host="h", pid=100 + rank), "left" if left else "here")
    return entry(RUN.seat(rank), encode_record(record), lease or LEASES[rank])


def failed(rank: int, reason: bytes = b"why") -> Entry:
    return entry(RUN.failed(rank), reason, LEASES[rank])


def arrival(rank: int, number: int, lease: int = 0) -> Entry:
    return entry(RUN.arrival(0, ALL, rank), encode_parcel(Parcel(number, "barrier")), lease or LEASES[rank])


def put(*entries: Entry) -> Changed:
    return Changed(entries, (), 1)


def gone(*keys: str) -> Changed:
    return Changed((), keys, 1)


def board_of(rank: int = 0, *events: WatchEvent) -> Board:
    """Return the board of a worker of a run that has begun, after more events."""
    board = Board(RUN, rank, LEASES[rank])
    for event in (Snapshot((), 1), put(run(())), put(seat(0)), put(seat(1)), put(seat(2)), put(run()), *events):
        board.is_dissolved = False  # the first snapshot, from before the run
        board.take_run(event)
    return board


def has_begun(board: Board) -> bool:
    return bool(board.members)


def end_of(board: Board, needed: Iterable[int] = ()) -> GroupError | None:
    try:
        board.check(needed)
    except GroupError as error:
        return error
    return None


def test_a_run_begins_when_its_record_names_the_members() -> None:
    board = Board(RUN, 1, LEASES[1])
    board.take_run(Snapshot((run(()), seat(0), seat(1)), 1))
    assert not has_begun(board)
    board.take_run(put(seat(2)))
    assert not has_begun(board)
    board.take_run(put(run()))
    assert board.members == LEASES
    assert end_of(board, range(3)) is None


def test_a_snapshot_of_a_run_that_has_begun_is_enough() -> None:
    board = Board(RUN, 1, LEASES[1])
    board.take_run(Snapshot((run(), seat(0), seat(1), seat(2)), 1))
    assert board.members == LEASES
    assert end_of(board, range(3)) is None


@pytest.mark.parametrize(
    "events",
    [[gone(GROUP.run)], [put(run((), "1" * 32))], [put(run((10, 99, 12)))], [Snapshot((seat(1),), 2)]],
    ids=["gone", "another", "without us", "snapshot"],
)
def test_a_run_that_does_not_begin_with_us_is_dissolved(events: list[WatchEvent]) -> None:
    board = Board(RUN, 1, LEASES[1])
    board.take_run(Snapshot((run(()), seat(1)), 1))
    was_dissolved = board.is_dissolved
    for event in events:
        board.take_run(event)
    assert (was_dissolved, board.is_dissolved) == (False, True)
    assert not has_begun(board)


def test_a_member_that_vanished_before_the_run_began_is_lost() -> None:
    board = Board(RUN, 0, LEASES[0])
    board.take_run(Snapshot((run(()), seat(0), seat(1), seat(2, lease=99)), 1))
    board.take_run(put(run()))
    error = end_of(board)
    assert isinstance(error, WorkerLostError)
    assert error.ranks == (2,)


def test_those_who_vanish_are_lost_one_after_the_other() -> None:
    board = board_of(0, gone(RUN.seat(2)))
    error = end_of(board)
    assert isinstance(error, WorkerLostError)
    assert error.ranks == (2,)
    assert "2 (pid 102 on h)" in str(error)
    board.take_run(gone(RUN.seat(1)))
    error = end_of(board)
    assert isinstance(error, WorkerLostError)
    assert error.ranks == (1, 2)


def test_those_whom_a_snapshot_does_not_show_are_lost() -> None:
    error = end_of(board_of(0, Snapshot((run(), seat(0), seat(2)), 9)))
    assert isinstance(error, WorkerLostError)
    assert error.ranks == (1,)


def test_who_said_that_it_left_is_not_lost() -> None:
    board = board_of(0, put(seat(1, left=True)), gone(RUN.seat(1)))
    assert end_of(board, [0, 2]) is None
    error = end_of(board, [0, 1])
    assert isinstance(error, WorkerLeftError)
    assert error.ranks == (1,)


@pytest.mark.parametrize("is_first", [True, False])
def test_what_came_first_is_why_the_run_ended(is_first: bool) -> None:
    events = [put(failed(1)), gone(RUN.seat(2))]
    error = end_of(board_of(0, *(events if is_first else reversed(events))))
    assert isinstance(error, GroupFailedError if is_first else WorkerLostError)


def test_reasons_are_cut_and_need_not_be_text() -> None:
    error = end_of(board_of(0, put(failed(1, b"\xff" * 1_000_000))))
    assert isinstance(error, GroupFailedError)
    assert error.rank == 1
    assert error.reason == "\ufffd" * 1000


def test_our_own_seat_is_what_matters_most() -> None:
    assert isinstance(end_of(board_of(1, put(failed(0)), gone(RUN.seat(1)))), SeatLostError)


def test_an_outage_is_known_until_it_is_over() -> None:
    board = board_of(0, Interrupted("no route"))
    assert board.outage == "no route"
    board.take_run(Changed((), (), 5))
    assert board.outage == ""


@pytest.mark.parametrize(
    "stranger",
    [
        entry(f"{RUN.prefix}seat/x", b"", 1),
        entry(f"{RUN.prefix}seat/7", b"", 1),
        entry(f"{RUN.prefix}seat/1/2", b"", 1),
        entry(f"{RUN.prefix}failed/1", b"forged", 99),
        entry(f"{RUN.prefix}release/zz", b"", 1),
        entry(f"{RUN.prefix}release/6", b"not ours to read", 1),
        entry(f"{RUN.prefix}other/1", b"", 1),
        entry(f"{GROUP.run}/{'1' * 32}/failed/0", b"another run", 10),
        entry(f"{GROUP.run}ning", b"", 1),
        seat(1, lease=99),
        entry(GROUP.run, b"garbage", 1),
    ],
    ids=lambda stranger: stranger.key.rpartition(RUN.token)[2] or stranger.key,
)
def test_what_no_worker_of_the_run_writes_is_passed_over(stranger: Entry) -> None:
    board = board_of(0, put(stranger), gone(f"{RUN.prefix}other/1", f"{RUN.prefix}seat/x", f"{RUN.prefix}seat/9"))
    assert end_of(board, range(3)) is None


def test_a_release_that_is_none_ends_the_run_and_is_named() -> None:
    board = board_of(1, put(entry(RUN.release(ALL), b"garbage", 10)))
    assert board.is_failed
    with pytest.raises(MetadataDecodeError, match="/release/7"):
        board.check(())


def test_a_run_record_that_is_none_is_named_before_the_run_begins() -> None:
    board = Board(RUN, 1, LEASES[1])
    board.take_run(Snapshot((entry(GROUP.run, b"garbage", 1),), 1))
    with pytest.raises(MetadataDecodeError, match=r"groups/g/run"):
        board.check(())


def test_arrivals_count_by_their_number() -> None:
    board = board_of()
    board.take_inbox(put(arrival(1, 4)))
    assert board.arrival(ALL, 1, 4) == Parcel(4, "barrier")
    assert board.arrival(ALL, 2, 4) is None
    assert board.arrival(ALL, 1, 5) is None
    with pytest.raises(CollectiveMismatchError, match=r"worker 1 .* is at collective 4 \(barrier\) .*, this one at 3"):
        board.arrival(ALL, 1, 3)


def test_only_members_arrive() -> None:
    board = board_of()
    board.take_inbox(put(arrival(1, 4, lease=99)))
    assert board.arrival(ALL, 1, 4) is None


def test_a_snapshot_replaces_what_was_in_the_inbox() -> None:
    board = board_of()
    message = entry(RUN.message(0, 1, 3), encode_parcel(Parcel(3, "message", b"m")), LEASES[0])
    board.take_inbox(put(arrival(1, 4), message))
    assert board.message(1, 3) == Parcel(3, "message", b"m")
    board.take_inbox(Snapshot((arrival(2, 4),), 9))
    assert board.arrival(ALL, 1, 4) is None
    assert board.arrival(ALL, 2, 4) is not None
    assert board.message(1, 3) is None


def test_a_message_that_was_deleted_is_gone_and_receipts_stay() -> None:
    board = board_of()
    message = entry(RUN.message(0, 1, 3), encode_parcel(Parcel(3, "message", b"m")), LEASES[0])
    receipt = entry(RUN.receipt(0, 2), encode_parcel(Parcel(8, "message")), LEASES[0])
    board.take_inbox(put(message, receipt))
    board.take_inbox(Interrupted("no route"))
    board.take_inbox(gone(RUN.message(0, 1, 3), RUN.receipt(0, 2), RUN.arrival(0, ALL, 1)))
    assert board.message(1, 3) is None
    assert board.receipts == {2: 8}


@pytest.mark.parametrize(
    "rest", ["arrival/6/1", "arrival/7/x", "arrival/5/1", "arrival/7", "message/1", "message/1/x", "receipt/x", "x", ""]
)
def test_other_keys_of_an_inbox_are_passed_over(rest: str) -> None:
    board = board_of()
    board.take_inbox(put(entry(RUN.inbox(0) + rest, b"garbage", 11)))
    assert not board.is_failed


@pytest.mark.parametrize("rest", ["arrival/7/1", "message/1/0", "receipt/1"])
def test_a_parcel_that_is_none_ends_the_run_and_is_named(rest: str) -> None:
    board = board_of()
    board.take_inbox(put(entry(RUN.inbox(0) + rest, b"garbage", 11)))
    with pytest.raises(MetadataDecodeError, match=rest):
        board.check(())


def test_an_inbox_that_somebody_floods_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.coordination.board.MAX_KEYS", 10)
    board = board_of()
    value = encode_parcel(Parcel(0, "message"))
    board.take_inbox(put(*(entry(RUN.message(0, 1, number), value, 10) for number in range(11))))
    with pytest.raises(MetadataDecodeError, match=r"more than 10 keys under .*/inbox/"):
        board.check(())


def test_releases_that_somebody_floods_us_with_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.coordination.board.MAX_KEYS", 10)
    board = board_of()
    value = encode_parcel(Parcel(0, "barrier"))
    board.take_run(put(*(entry(RUN.release(2 * number + 1), value, 10) for number in range(11))))
    with pytest.raises(MetadataDecodeError, match=r"more than 10 keys under .*/run/"):
        board.check(())


def test_an_inbox_holds_what_a_thousand_others_may_send() -> None:
    assert MAX_KEYS > (MAX_WORKERS - 1) * (WINDOW + 2)  # messages, a receipt, an arrival
