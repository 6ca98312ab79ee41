from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from tests.unit.etcd.fakes import FakeRpcError, unavailable
from tests.unit.etcd.lease_fakes import SILENCE, Bench

from trunkline.errors import ForkedError, StoreAuthError, StoreUnavailableError
from trunkline.etcd.messages import LEASE_KEEP_ALIVE
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXPIRED = FakeRpcError(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
DENIED = FakeRpcError(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def open_bench(endpoints: int = 1) -> Bench:
        benches.append(Bench(endpoints))
        return benches[-1]

    yield open_bench
    for bench in benches:
        bench.keeper.close()
        for stream in bench.server.streams:
            stream.call.sender.join(30)
            assert not stream.call.sender.is_alive()
    assert not [thread for thread in threading.enumerate() if thread.name == "trunkline-etcd-keepalive"]


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


def test_a_lease_is_refreshed_each_third_of_its_ttl(bench: Bench) -> None:
    lease = bench.grant(1, 30)
    for _ in range(3):
        bench.advance(10)
        assert bench.is_refreshed(1)
    assert bench.server.refreshed == [1, 1, 1]
    assert len(bench.server.streams) == 1
    assert not lease.is_lost


def test_a_clock_that_jumps_loses_nothing(bench: Bench) -> None:
    """Only etcd says that a lease is gone, however late it is asked."""
    lease = bench.grant(7, 30)
    bench.advance(86_400, refreshes=1)
    eventually(lambda: lease.refreshed_at == bench.clock.monotonic())
    assert not lease.is_lost


def test_one_stream_keeps_all_each_at_its_time(bench: Bench) -> None:
    bench.grant(1, 30)
    bench.grant(2, 3)
    for _ in range(9):
        bench.advance(1)
        assert bench.is_refreshed(2)
    assert bench.server.refreshed == [2] * 9
    bench.advance(1.001, refreshes=2)
    assert bench.server.refreshed.count(1) == 1
    assert len(bench.server.streams) == 1


def test_no_stream_before_the_first_refresh_nor_without_a_lease(bench: Bench) -> None:
    lease = bench.grant(1, 30)
    lease.orphan()
    bench.clock.advance(100)
    bench.clock.until_waiting()
    bench.grant(2, 30)
    assert bench.server.streams == []


def test_a_lease_that_is_due_sooner_than_all_others_is_not_late(bench: Bench) -> None:
    bench.grant(1, 60)
    bench.grant(2, 3)
    bench.advance(1)
    bench.grant(3, 2.4)
    bench.advance(0.8)
    assert bench.server.refreshed == [2, 3]


def test_refreshes_go_out_without_waiting_for_answers(bench: Bench) -> None:
    for number in range(100):
        bench.grant(number, 30, answer=SILENCE)
    bench.advance(10, refreshes=100)
    sent_at = bench.clock.monotonic()
    bench.clock.advance(3)
    for number in reversed(range(100)):  # matched by id, whatever their order
        bench.call(0).answer(LEASE_KEEP_ALIVE.response(ID=number, TTL=30))
    eventually(lambda: all(lease.refreshed_at == sent_at for lease in bench.leases.values()))
    assert {lease.due_at for lease in bench.leases.values()} == {sent_at + 10}


def test_no_more_are_under_way_than_a_stopped_etcd_takes(make: Callable[..., Bench]) -> None:
    bench = make(endpoints=2)
    bench.server.stopped = {"0:1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trunkline.etcd.lease_keeper._WINDOW", 4)
        for number in range(10):
            bench.grant(number, 30)
        bench.advance(10, refreshes=4)
        bench.clock.advance(9)
        bench.clock.until_waiting()
        assert bench.server.refreshed == [0, 1, 2, 3]
        for number in (0, 1):
            bench.call(0).answer(LEASE_KEEP_ALIVE.response(ID=number, TTL=30))
        eventually(lambda: bench.server.refreshed == [0, 1, 2, 3, 4, 5])
        bench.until(lambda: all(bench.leases[number].refreshed_at > 1000 for number in range(10)))
    assert bench.server.streams[-1].channel.endpoint == "1:1"


def test_what_is_due_soon_goes_out_with_what_is_due_now(bench: Bench) -> None:
    bench.grant(1, 30)
    bench.clock.advance(0.4)
    bench.grant(2, 30)
    bench.clock.advance(0.4)
    bench.grant(3, 30)
    bench.advance(9.2, refreshes=2)
    assert bench.server.refreshed == [1, 2]


def test_an_answer_too_late_for_the_next_refresh_is_followed_by_it_at_once(bench: Bench) -> None:
    bench.grant(1, 3, answer=SILENCE)
    bench.advance(1)
    bench.clock.advance(1.5)
    bench.call(0).answer(LEASE_KEEP_ALIVE.response(ID=1, TTL=3))
    eventually(lambda: bench.server.refreshed == [1, 1])
    assert len(bench.server.streams) == 1


def test_answers_nobody_asked_for_are_ignored(bench: Bench) -> None:
    lease = bench.grant(1, 30)
    bench.advance(10)
    assert bench.is_refreshed(1)
    for number in (1, 7):
        bench.call(0).answer(LEASE_KEEP_ALIVE.response(ID=number, TTL=0))
    bench.settle()
    bench.advance(10)
    assert bench.is_refreshed(1)
    assert not lease.is_lost


def test_the_owner_is_told_once_that_the_lease_is_lost(bench: Bench) -> None:
    threads: list[str] = []
    lease = bench.grant(1, 3, answer=0, on_lost=lambda: threads.append(threading.current_thread().name))
    bench.advance(1)
    eventually(lambda: threads)
    assert lease.is_lost
    bench.clock.advance(100)
    bench.clock.until_waiting()
    assert bench.server.refreshed == [1]
    assert threads == ["trunkline-etcd-keepalive"]
    assert not bench.keeper.remove(lease)


def test_an_owner_that_fails_does_not_harm_the_others(bench: Bench) -> None:
    def fail() -> None:
        raise RuntimeError("owner's fault")

    bench.grant(1, 3, answer=0, on_lost=fail)
    bench.grant(2, 3)
    bench.advance(1, refreshes=2)
    assert bench.is_refreshed(2)
    bench.advance(1)
    assert bench.server.refreshed == [1, 2, 2]


def test_a_lease_let_go_is_not_refreshed_and_its_answer_not_awaited(bench: Bench) -> None:
    first = bench.grant(1, 30, answer=SILENCE)
    bench.grant(2, 30)
    bench.advance(10, refreshes=2)
    assert bench.is_refreshed(2)
    first.close()
    bench.advance(10)
    assert bench.is_refreshed(2)
    bench.advance(10)
    assert bench.server.refreshed == [1, 2, 2, 2]
    assert len(bench.server.streams) == 1


def test_a_lease_let_go_while_those_before_it_are_sent_is_not(bench: Bench) -> None:
    bench.grant(1, 30)
    second = bench.grant(2, 30)
    bench.server.on_sent = lambda _number: second.orphan()
    bench.advance(10)
    bench.advance(10)
    assert bench.server.refreshed == [1, 1]


def test_an_owner_that_lets_go_of_all_when_one_is_lost(bench: Bench) -> None:
    bench.grant(1, 3, answer=0, on_lost=bench.keeper.close)
    bench.grant(2, 3)
    bench.clock.advance(1)  # the first may be lost before the second is sent
    eventually(lambda: not any(each.name == "trunkline-etcd-keepalive" for each in threading.enumerate()))


def test_a_broken_stream_is_opened_again_and_the_unanswered_are_sent_again(bench: Bench) -> None:
    bench.grant(1, 30)
    bench.grant(2, 30, answer=SILENCE)
    bench.grant(3, 300)
    bench.advance(10, refreshes=2)
    assert bench.is_refreshed(1)
    bench.server.answers[2] = 30
    bench.call(0).break_off(unavailable())
    eventually(lambda: bench.server.sent == [(0, 1), (0, 2), (1, 2)])  # and nothing that is not due
    eventually(lambda: bench.is_refreshed(2))
    assert bench.server.pauses == []


def test_a_stream_the_server_ends_in_order_is_opened_again_when_needed(bench: Bench) -> None:
    bench.grant(1, 30)
    bench.advance(10)
    assert bench.is_refreshed(1)
    bench.call(0).break_off(None)
    bench.call(0).sender.join(30)
    bench.clock.until_waiting()
    assert len(bench.server.streams) == 1
    bench.advance(10)
    assert bench.server.sent == [(0, 1), (1, 1)]


def test_an_outage_is_no_loss_however_long(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    lease = bench.grant(1, 6)
    refreshed_at = lease.refreshed_at
    bench.server.refusals = [StoreUnavailableError("nobody home")] * 20
    bench.until(lambda: lease.refreshed_at > refreshed_at)
    assert not lease.is_lost
    assert len(bench.server.pauses) == 20
    assert all(0.2 <= pause <= 2 for pause in bench.server.pauses)
    (warning,) = caplog.messages  # once in an outage
    assert "no lease is refreshed by etcd at" in warning
    assert "nobody home" in warning
    bench.server.refusals = [StoreUnavailableError("nobody home")]
    bench.call(0).break_off(unavailable())
    bench.until(lambda: len(bench.server.pauses) == 21)
    assert bench.server.pauses[-1] <= 0.4  # short again after a success
    assert len(caplog.messages) == 2


def test_a_pause_is_no_longer_than_the_time_between_two_refreshes(bench: Bench) -> None:
    bench.grant(1, 2)
    bench.grant(2, 30)
    bench.server.refusals = [StoreUnavailableError("nobody home")] * 30
    bench.until(lambda: bench.server.sent)
    assert max(bench.server.pauses) <= 2 / 3


@pytest.mark.parametrize(("ttl", "patience"), [(3, 2), (30, 10)])
def test_an_endpoint_that_stays_silent_is_left(make: Callable[..., Bench], ttl: float, patience: float) -> None:
    bench = make(endpoints=3)
    bench.server.stopped = {"0:1", "1:1"}
    lease = bench.grant(1, ttl)
    bench.grant(2, ttl)
    bench.advance(ttl / 3, refreshes=2)
    bench.clock.advance(patience - 0.01)
    bench.clock.until_waiting()
    assert len(bench.server.streams) == 1
    bench.advance(0.02, refreshes=2)
    bench.advance(patience, refreshes=2)
    eventually(lambda: bench.is_refreshed(1) and bench.is_refreshed(2))
    assert [stream.channel.endpoint for stream in bench.server.streams] == ["0:1", "1:1", "2:1"]
    assert bench.server.pauses == []
    assert not lease.is_lost


def test_silence_on_every_endpoint_is_no_reason_to_hurry(make: Callable[..., Bench]) -> None:
    bench = make(endpoints=2)
    bench.server.stopped = {"0:1", "1:1"}
    bench.grant(1, 6)
    bench.until(lambda: len(bench.server.pauses) >= 4)
    streams = len(bench.server.streams)
    assert streams <= len(bench.server.pauses) + 2  # a pause after the first round, then one after each attempt


def test_a_process_that_stood_still_reads_what_came_before_it_judges(bench: Bench) -> None:
    bench.grant(1, 30, answer=SILENCE)
    bench.grant(2, 33)
    bench.advance(10)
    sent_at = bench.clock.monotonic()
    bench.clock.advance(1000)
    eventually(lambda: bench.server.refreshed == [1, 2])  # what is due goes out at once, on the same stream
    eventually(lambda: bench.is_refreshed(2))
    bench.server.answers[1] = 30
    bench.call(0).answer(LEASE_KEEP_ALIVE.response(ID=1, TTL=30))
    eventually(lambda: bench.is_refreshed(1))  # it was due again
    assert sent_at < bench.leases[1].refreshed_at
    assert len(bench.server.streams) == 1


def test_a_stream_that_stays_silent_after_a_standstill_is_given_up(bench: Bench) -> None:
    bench.grant(1, 30, answer=SILENCE)
    bench.advance(10)
    bench.clock.advance(1000)
    bench.server.answers[1] = 30
    bench.until(lambda: len(bench.server.streams) == 2)
    assert bench.clock.monotonic() <= 2030


def test_an_expired_token_is_forgotten_and_the_stream_opened_at_once(bench: Bench) -> None:
    bench.grant(1, 30)
    bench.advance(10)
    assert bench.is_refreshed(1)
    bench.server.answers[1] = EXPIRED
    bench.advance(10, refreshes=3)  # the last two on streams with new tokens, which are refused as well
    eventually(lambda: bench.server.pauses)  # so there is no hurry any more
    assert bench.server.forgotten == ["token 0", "token 1", "token 2"]
    bench.server.answers[1] = 30
    lease = bench.leases[1]
    bench.until(lambda: lease.refreshed_at > 1020)
    assert not lease.is_lost


def test_a_missing_right_may_be_given_later(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    lease = bench.grant(1, 3)
    bench.server.refusals = [StoreAuthError("denied")] * 2
    bench.until(lambda: lease.refreshed_at > 1000)
    assert not lease.is_lost
    assert len(bench.server.pauses) == 2
    assert "denied" in caplog.text


def test_a_lease_that_is_refused_does_not_stop_the_others(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.grant(1, 30)
    bench.grant(2, 30, answer=DENIED)
    bench.grant(3, 30)
    bench.clock.advance(10)
    eventually(lambda: bench.is_refreshed(1) and bench.is_refreshed(3))
    assert bench.server.refreshed.count(2) == 1  # it waits, however long the others are on their way
    assert "lease 2 was not refreshed" in caplog.text
    assert "permission denied" in caplog.text
    bench.server.answers[2] = 30
    bench.until(lambda: bench.leases[2].refreshed_at > 1000)
    assert not bench.leases[2].is_lost


@pytest.mark.parametrize("state", ["idle", "due later", "opening", "unanswered", "pausing"])
def test_close_ends_every_wait(bench: Bench, state: str) -> None:
    if state != "idle":
        bench.grant(1, 30, answer=SILENCE)
    if state == "opening":
        bench.server.may_open.clear()
    if state == "pausing":
        bench.server.refusals = [StoreUnavailableError("nobody home")]
    if state in {"opening", "unanswered", "pausing"}:
        bench.clock.advance(10)
        assert bench.server.opening.wait(30)
    if state == "unanswered":
        eventually(lambda: bench.server.sent)
    if state == "pausing":
        eventually(lambda: bench.server.pauses)
    bench.keeper.close()  # joins its thread; time stands still
    bench.keeper.close()
    bench.keeper.add(bench.leases.get(1) or cast("Any", None))  # does nothing
    assert bench.lost == []


def test_nobody_spins(bench: Bench) -> None:
    for number in range(20):
        bench.grant(number, 30)
    for _ in range(10):
        bench.advance(10, refreshes=20)
        assert all(bench.is_refreshed(number) for number in range(20))
    for number in range(20):
        bench.server.answers[number] = SILENCE
    bench.advance(10, refreshes=20)
    assert bench.clock.waits < 20 + 11 * 3  # each grant, then per round: due, answered, done


def test_a_child_touches_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = bench.grant(1, 30)

    def check_process() -> None:
        raise ForkedError("forked")

    with monkeypatch.context() as patch, bench.keeper._lock:  # held for ever in a child
        patch.setattr(bench.server, "check_process", check_process)
        with pytest.raises(ForkedError):
            lease.orphan()
