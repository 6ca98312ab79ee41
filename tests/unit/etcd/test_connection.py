from __future__ import annotations

import os
from typing import Any, cast

import grpc
import pytest
from tests.unit.etcd.fakes import FakeChannel, FakeRpcError, tick, unavailable

from trunkline.clock import Deadline
from trunkline.errors import ClosedError, ForkedError, StoreAuthError, StoreRequestError, StoreUnavailableError
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.connection import Connection
from trunkline.etcd.credentials import Credentials
from trunkline.etcd.messages import AUTHENTICATE, RANGE, STATUS, TXN, WATCH

TIMED_OUT = FakeRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
BAD_TOKEN = FakeRpcError(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
OLD_TOKEN = FakeRpcError(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: revision of auth store is old")


class Clock:
    """Waits by moving on."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, event: Any, timeout: float | None) -> bool:
        self.now += timeout or 0
        return bool(event.is_set())


class Network:
    def __init__(self, *endpoints: str, username: str = "") -> None:
        self.clock = Clock()
        config = EtcdConfig(endpoints, credentials=Credentials(username, "secret"))
        self.channels: list[FakeChannel] = []
        self.connection = Connection(config, clock=self.clock, open_channel=self._open)

    def _open(self, endpoint: str, config: EtcdConfig) -> Any:
        self.channels.append(FakeChannel(endpoint, config))
        return self.channels[-1]

    def get(self, timeout: float | None = 10, **settings: Any) -> Any:
        return self.connection.call(
            RANGE,
            RANGE.request(key=b"k"),
            deadline=Deadline(timeout, self.clock),
            operation="get",
            key=b"k",
            **settings,
        )

    def transact(self, timeout: float | None = 10) -> Any:
        deadline = Deadline(timeout, self.clock)
        return self.connection.call(TXN, TXN.request(), deadline=deadline, operation="transaction", repeat=False)


def test_it_sticks_to_an_endpoint_that_answers() -> None:
    network = Network("a:1", "b:1")
    for _ in range(3):
        network.get()
    assert [len(channel.calls) for channel in network.channels] == [3, 0]
    assert network.channels[0].calls[0][3] == (("hasleader", "true"),)


def test_it_goes_on_to_the_next_endpoint_at_once() -> None:
    network = Network("a:1", "b:1")
    network.channels[0].script = [unavailable()]
    network.get()
    network.get()
    assert [len(channel.calls) for channel in network.channels] == [1, 2]
    assert network.clock.now == 0


def test_after_a_round_it_pauses() -> None:
    network = Network("a:1", "b:1")
    for channel in network.channels:
        channel.script = [unavailable()]
    network.get()
    assert 0.2 <= network.clock.now <= 0.4


def test_an_attempt_is_short_and_grows_when_answers_are_slow() -> None:
    network = Network("a:1")
    network.channels[0].script = [tick(network.clock, TIMED_OUT), tick(network.clock, TIMED_OUT)]
    network.get(timeout=None)
    assert [call[2] for call in network.channels[0].calls] == pytest.approx([2, 4, 8])


def test_it_gives_up_at_the_deadline_and_says_all() -> None:
    network = Network("a:1", "b:1")
    for channel in network.channels:
        channel.script = [unavailable("nobody home")] * 100
    with pytest.raises(
        StoreUnavailableError, match=r"etcd://a:1,b:1: get 'k' failed after 3\.\d s .*nobody home"
    ) as error:
        network.get(timeout=3)
    assert network.clock.now == pytest.approx(3)
    assert error.value.retryable
    assert isinstance(error.value.__cause__, grpc.RpcError)


def test_a_refusal_is_final() -> None:
    network = Network("a:1", "b:1")
    network.channels[0].script = [FakeRpcError(grpc.StatusCode.NOT_FOUND, "no such lease")]
    with pytest.raises(StoreRequestError):
        network.get()
    assert network.channels[1].calls == []


def test_what_must_not_be_repeated_is_sent_once_to_an_endpoint_that_answers() -> None:
    network = Network("a:1", "b:1")
    network.channels[0].script = [unavailable()]
    network.transact()
    network.transact()
    assert [call[0] for call in network.channels[0].calls] == [STATUS]
    assert [call[0] for call in network.channels[1].calls] == [STATUS, TXN, TXN]
    network.channels[1].script = [unavailable()]
    with pytest.raises(StoreUnavailableError, match="whether it was carried out is not known"):
        network.transact()
    assert [call[0] for call in network.channels[0].calls] == [STATUS]


def test_it_authenticates_first_and_once() -> None:
    network = Network("a:1", username="eva")
    network.channels[0].script = [AUTHENTICATE.response(token="t1")]
    network.get()
    network.get()
    calls = network.channels[0].calls
    assert [call[0] for call in calls] == [AUTHENTICATE, RANGE, RANGE]
    assert calls[0][1].password == "secret"
    assert ("token", "t1") in calls[2][3]


def test_an_expired_token_is_renewed_at_once() -> None:
    network = Network("a:1", username="eva")
    network.channels[0].script = [AUTHENTICATE.response(token="t1"), BAD_TOKEN, AUTHENTICATE.response(token="t2")]
    network.get()
    assert ("token", "t2") in network.channels[0].calls[-1][3]
    assert network.clock.monotonic() == 0


def test_a_token_may_get_old_again_while_roles_are_set_up_but_not_for_ever() -> None:
    network = Network("a:1", username="eva")
    script = network.channels[0].script
    for number in range(4):
        script.extend([AUTHENTICATE.response(token=f"t{number}"), OLD_TOKEN])
    script.append(AUTHENTICATE.response(token="t4"))
    network.get()
    assert ("token", "t4") in network.channels[0].calls[-1][3]
    assert network.clock.monotonic() > 0
    network.channels[0].script = [BAD_TOKEN, *[AUTHENTICATE.response(token="t"), BAD_TOKEN] * 4]
    with pytest.raises(StoreAuthError, match="renewed and refused again"):
        network.get()


@pytest.mark.parametrize("repeat", [True, False])
def test_a_certificate_that_is_not_accepted_ends_the_call_once_all_endpoints_were_tried(repeat: bool) -> None:
    network = Network("a:1", "b:1")
    expired = unavailable("failed to connect to all addresses; last error: CERTIFICATE_VERIFY_FAILED: has expired")
    for channel in network.channels:
        channel.script = [expired] * 3
    with pytest.raises(StoreAuthError, match=r"certificate of etcd is not accepted.*ETCDCTL_CACERT"):
        network.get(timeout=None, repeat=repeat)
    assert [len(channel.calls) for channel in network.channels] == [1, 1]


def test_a_good_endpoint_is_found_beside_one_whose_certificate_is_not_accepted() -> None:
    network = Network("a:1", "b:1")
    network.channels[0].script = [unavailable("failed to connect to all addresses: Hostname Verification Check failed")]
    network.get()
    assert network.channels[1].calls


def test_an_outage_beside_a_certificate_that_is_not_accepted_is_waited_for() -> None:
    network = Network("a:1", "b:1")
    network.channels[0].script = [unavailable("failed to connect: SSLV3_ALERT_BAD_CERTIFICATE")] * 2
    network.channels[1].script = [unavailable()] * 2
    network.get()
    assert network.clock.monotonic() > 0


def test_credentials_for_a_cluster_without_authentication_are_put_by() -> None:
    network = Network("a:1", username="eva")
    off = FakeRpcError(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")
    network.channels[0].script = [off]
    network.get()
    network.get()
    assert [call[0] for call in network.channels[0].calls] == [AUTHENTICATE, RANGE, RANGE]
    now_on = FakeRpcError(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty")
    network.channels[0].script = [now_on, AUTHENTICATE.response(token="t1")]
    network.get()
    assert ("token", "t1") in network.channels[0].calls[-1][3]


def test_missing_credentials_are_not_asked_for_twice() -> None:
    network = Network("a:1")
    network.channels[0].script = [FakeRpcError(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty")]
    with pytest.raises(StoreAuthError, match="credentials are missing"):
        network.get()
    assert len(network.channels[0].calls) == 1


def test_a_closed_connection_says_so_also_to_calls_under_way() -> None:
    network = Network("a:1")

    def close_meanwhile(_timeout: float | None) -> Any:
        network.connection.close()
        raise FakeRpcError(grpc.StatusCode.CANCELLED, "Channel closed!")

    network.channels[0].script = [close_meanwhile]
    with pytest.raises(ClosedError):
        network.get()
    with pytest.raises(ClosedError):
        network.get()
    assert network.channels[0].is_closed
    network.connection.close()


def test_a_forked_child_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network("a:1")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ForkedError, match="forked"):
        network.get()
    network.connection.close()
    assert not network.channels[0].is_closed


def test_a_late_failure_of_an_old_endpoint_moves_nobody() -> None:
    network = Network("a:1", "b:1", "c:1")
    old = cast("Any", network.channels[0])
    network.connection.leave(old)
    network.connection.leave(old)
    network.get()
    assert len(network.channels[1].calls) == 1


def test_a_stream_opens_where_an_endpoint_just_answered() -> None:
    network = Network("a:1", "b:1")
    network.channels[0].script = [unavailable()]
    stream = network.connection.open_stream(WATCH, iter(()), operation="watch")
    assert stream.channel is cast("Any", network.channels[1])
    for channel in network.channels:
        channel.script = [unavailable()] * 100
    with pytest.raises(StoreUnavailableError, match="watch failed after 4"):
        network.connection.open_stream(WATCH, iter(()), operation="watch")


def test_a_stream_on_a_connection_closed_meanwhile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC raises a bare ValueError; it would end the thread that opens streams."""
    network = Network("a:1")

    def stream(*_: Any) -> Any:
        network.connection.close()
        raise ValueError("Cannot invoke RPC on closed channel!")

    monkeypatch.setattr(network.channels[0], "stream", stream)
    with pytest.raises(ClosedError):
        network.connection.open_stream(WATCH, cast("Any", iter(())), operation="watch")


def test_a_token_forgotten_by_another_thread_is_still_sent() -> None:
    network = Network("a:1", username="eva")
    network.channels[0].script = [AUTHENTICATE.response(token="one")]
    original = network.connection._token_lock

    class Lock:
        """Another thread, which the token did not serve, comes just after the lock is given back."""

        def acquire(self, timeout: float) -> bool:
            return original.acquire(timeout=timeout)

        def release(self) -> None:
            original.release()
            network.connection.forget_token("one")

    network.connection._token_lock = cast("Any", Lock())
    network.get()
    assert ("token", "one") in network.channels[0].calls[-1][3]


@pytest.mark.parametrize(("version", "is_told"), [("3.5.1", True), ("3.5.3", False)])
def test_a_cluster_that_can_lose_writes_is_warned_of(
    version: str, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network("a:1", "b:1")
    network.channels[0].script = [STATUS.response(version=version)]
    network.connection.open_stream(WATCH, iter(()), operation="watch")
    assert ("lose committed writes" in caplog.text) is is_told


def test_nobody_waits_for_anothers_authentication_past_its_own_time() -> None:
    network = Network("a:1", username="eva")
    network.channels[0].script = [AUTHENTICATE.response(token="t1")]
    with network.connection._token_lock:  # another thread authenticates, and gets no answer
        network.get(timeout=0.05)
    assert ("token", "t1") in network.channels[0].calls[-1][3]
