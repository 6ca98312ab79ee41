"""A terminal state means quiet: once a transfer has ended, badly too, neither side's memory changes because of it.

Each test poisons the initiator's buffer right after the end, and then gives whatever might still travel its chance.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.fault.agent.conftest import SIZE

import trunkline
from trunkline import Agent, State
from trunkline.errors import (
    DeadlineError,
    MemoryInUseError,
    PeerGoneError,
    TransferCancelledError,
    TransferDeadlineError,
    TransferError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fault.agent.conftest import Target

    from trunkline import TransferHandle

PROMPT = 20.0
"""Seconds; far above what anything here takes, and far below UCX's own timeouts."""


def load(initiator: Agent, target: Target, value: int) -> tuple[np.ndarray[Any, Any], Any, Any]:
    memory = np.full(SIZE, value, np.uint8)
    local = initiator.register(memory)
    peer = initiator.load_peer(bytes.fromhex(target.ask("card")))
    peer.connect(PROMPT)
    return memory, local, peer["memory"]


def end_of(transfer: TransferHandle) -> TransferError | None:
    """Wait for the end, well or badly."""
    trunkline.wait([transfer], PROMPT)
    assert transfer.state.has_ended
    return transfer.error


def ended(transfer: TransferHandle) -> TransferError:
    with pytest.raises(TransferError) as caught:
        transfer.wait(PROMPT)
    assert transfer.error is caught.value
    assert not transfer.ok
    return caught.value


@pytest.mark.usefixtures("tcp")
def test_a_cancelled_write_to_a_stopped_peer(initiator: Agent, open_target: Callable[..., Target]) -> None:
    target = open_target()
    memory, local, remote = load(initiator, target, 2)
    target.stop()
    transfer = initiator.write(local, to=remote, notify=b"promised")
    with pytest.raises(DeadlineError, match="was not cancelled"):
        transfer.wait(0.2)
    seen = [transfer.state]
    transfer.cancel()
    error = ended(transfer)
    seen.append(transfer.state)
    assert seen == [State.POSTED, State.CANCELLED]
    assert isinstance(error, TransferCancelledError)
    assert error.failed is not None
    assert error.failed.tolist() == [0]
    memory[:] = 9
    target.resume()
    assert target.ask("note", PROMPT) == ["initiator", "promised", False]
    heard = target.ask("checksum")
    assert target.ask("strangers", 1, 2) == 0
    assert stays(target, "checksum", heard)
    again = initiator.write(local, to=remote, notify=b"second")
    again.wait(PROMPT)
    assert target.ask("note", PROMPT) == ["initiator", "second", True]
    assert stays(target, "count 9", [SIZE])


def stays(target: Target, question: str, answer: object) -> bool:
    """Whether a target's memory stays as it is: each question goes through all of it, which takes it a while."""
    return all(target.ask(question) == answer for _ in range(5))


@pytest.mark.usefixtures("tcp")
def test_writes_after_a_cancelled_one_win(initiator: Agent, open_target: Callable[..., Target]) -> None:
    """They are posted while the peer still stands still, with megabytes of the cancelled one in its kernel."""
    target = open_target()
    memory, local, remote = load(initiator, target, 2)
    target.stop()
    first = initiator.write(local, to=remote, notify=b"first")
    first.cancel()
    ended(first)
    memory[:] = 9
    # Small ones, where the last bytes of the cancelled one belong: on a connection of their own they would overtake it.
    spots = [slice(at, at + 4096) for at in range(1 << 20, 4 << 20, 64 << 10)]
    small = [initiator.write(local[spot], to=remote[spot]) for spot in spots]
    with pytest.raises(DeadlineError):
        small[0].wait(0.2)
    target.resume()
    for each in small:
        each.wait(PROMPT)
    assert target.ask("note", PROMPT) == ["initiator", "first", False]
    assert stays(target, "count 9", [len(spots) * 4096])
    whole = initiator.write(local, to=remote, notify=b"second")
    whole.wait(PROMPT)
    assert target.ask("note", PROMPT) == ["initiator", "second", True]
    assert stays(target, "count 9", [SIZE])


@pytest.mark.usefixtures("tcp")
def test_what_waits_for_a_stopped_peer_can_be_stopped(initiator: Agent, open_target: Callable[..., Target]) -> None:
    """Behind a connection that was closed by force nothing was sent: no drain, no grace, no force."""
    target = open_target()
    memory, local, remote = load(initiator, target, 2)
    target.stop()
    first = initiator.write(local, to=remote)
    first.cancel()
    ended(first)
    memory[:] = 9
    cancelled = initiator.write(local, to=remote)
    expired = initiator.read(remote, into=local, deadline=0.2)
    goes_on = initiator.write(local, to=remote)
    cancelled.cancel()
    assert cancelled.state is State.CANCELLED
    assert isinstance(ended(expired), TransferDeadlineError)
    assert goes_on.poll() is State.POSTED
    with pytest.raises(DeadlineError):
        initiator.peer("target").connect(0.1)
    target.resume()
    goes_on.wait(PROMPT)
    assert stays(target, "count 9", [SIZE])


@pytest.mark.usefixtures("tcp")
def test_the_death_of_a_peer_that_is_waited_for(initiator: Agent, open_target: Callable[..., Target]) -> None:
    target = open_target()
    _, local, remote = load(initiator, target, 2)
    target.stop()
    first = initiator.write(local, to=remote)
    first.cancel()
    ended(first)
    second = initiator.write(local, to=remote)
    peer = initiator.peer("target")
    target.kill()
    assert ended(second).reason
    assert "unreachable" in peer.wait_gone(PROMPT)


@pytest.mark.usefixtures("tcp")
def test_closing_the_agent_while_transfers_wait_for_a_peer(open_target: Callable[..., Target]) -> None:
    target = open_target()
    initiator = Agent("initiator", devices="lo", grace=0.3)
    _, local, remote = load(initiator, target, 2)
    target.stop()
    first = initiator.write(local, to=remote)
    first.cancel()
    ended(first)
    second = initiator.write(local, to=remote, notify=b"never")
    initiator.close(timeout=5)
    assert second.state.has_ended
    target.resume()
    assert target.ask("strangers", 1, 2) == 0


@pytest.mark.usefixtures("tcp")
@pytest.mark.parametrize("first", ["initiator", "target"])
def test_a_peer_that_closes_after_a_cancelled_write(
    initiator: Agent, open_target: Callable[..., Target], first: str
) -> None:
    """UCX 1.22 keeps half of the connection, whoever made it, and crashes when the peer lets go of it (ADR 6)."""
    target = open_target()
    if first == "target":
        target.ask("hail", initiator.card().hex())
        assert initiator.wait_notification(timeout=PROMPT).payload == b"here"
    _, local, remote = load(initiator, target, 2)
    target.stop()
    transfer = initiator.write(local, to=remote)
    transfer.cancel()
    ended(transfer)
    target.resume()
    peer = initiator.peer("target")
    peer.connect(PROMPT)
    assert comes_to_rest()
    target.close()
    assert "unreachable" in peer.wait_gone(PROMPT)


def comes_to_rest() -> bool:
    """Whether this process soon sleeps most of the time: a connection that UCX never has done with keeps it awake."""
    end = time.monotonic() + PROMPT
    while time.monotonic() < end:
        used = time.process_time()
        time.sleep(0.2)
        if time.process_time() - used < 0.02:
            return True
    return False


@pytest.mark.usefixtures("tcp")
def test_a_read_that_passes_its_deadline(initiator: Agent, open_target: Callable[..., Target]) -> None:
    target = open_target()
    memory, local, remote = load(initiator, target, 0)
    target.stop()
    started = time.monotonic()
    transfer = initiator.read(remote, into=local, deadline=0.2)
    error = ended(transfer)
    assert isinstance(error, TransferDeadlineError)
    assert isinstance(error, TimeoutError)
    assert "deadline of 0.2 s" in str(error)
    assert time.monotonic() - started < PROMPT
    assert transfer.state is State.FAILED
    memory[:] = 9
    target.resume()
    target.ask("checksum")
    initiator.peer("target").connect(PROMPT)
    assert np.count_nonzero(memory == 9) == SIZE


@pytest.mark.usefixtures("tcp")
def test_a_peer_whose_answer_to_a_read_is_not_wanted_any_more(
    initiator: Agent, open_target: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    """UCX 1.22 crashes such a peer where the heap held certain bytes (ADR 8); here all new memory is full of them."""
    monkeypatch.setenv("MALLOC_PERTURB_", "5")  # the C library fills it with 0xfa
    target = open_target()
    _, local, remote = load(initiator, target, 0)
    target.stop()
    ended(initiator.read(remote, into=local, deadline=0.2))
    target.resume()
    initiator.peer("target").connect(PROMPT)
    assert target.ask("count", 1) == [SIZE]


@pytest.mark.usefixtures("tcp")
def test_a_deadline_is_kept_when_nobody_looks(initiator: Agent, open_target: Callable[..., Target]) -> None:
    target = open_target()
    _, local, remote = load(initiator, target, 0)
    target.stop()
    seen: list[TransferHandle] = []
    transfer = initiator.read(remote, into=local, deadline=0.2, tag="late")
    transfer.add_done_callback(seen.append)
    end = time.monotonic() + PROMPT
    while not seen and time.monotonic() < end:
        time.sleep(0.01)
    assert seen == [transfer]
    assert [each.tag for each in initiator.take_finished()] == ["late"]


def test_a_peer_killed_in_the_middle(initiator: Agent, open_target: Callable[..., Target], transport: str) -> None:
    target = open_target()
    memory, local, remote = load(initiator, target, 2)
    transfers = [initiator.write(local, to=remote) for _ in range(2)]
    target.kill()
    late = []
    for _ in range(20):
        try:
            late.append(initiator.write(local, to=remote, deadline=PROMPT))
        except PeerGoneError:
            break
    for transfer in [*transfers, *late]:
        error = end_of(transfer)
        assert error is None or error.reason, transport
    memory[:] = 9
    peer = initiator.peer("target")
    assert "unreachable" in peer.wait_gone(PROMPT)
    with pytest.raises(PeerGoneError, match="fetch it again"):
        initiator.write(local, to=remote)
    assert np.count_nonzero(memory == 9) == SIZE


def test_an_idle_peer_that_is_killed(initiator: Agent, open_target: Callable[..., Target], transport: str) -> None:
    target = open_target()
    load(initiator, target, 2)
    peer = initiator.peer("target")
    target.kill()
    assert "unreachable" in peer.wait_gone(PROMPT), transport
    with pytest.raises(PeerGoneError):
        peer.connect(1)
    with pytest.raises(PeerGoneError):
        initiator.notify(peer, b"anybody?")


@pytest.mark.usefixtures("tcp")
def test_memory_in_use_is_not_deregistered(initiator: Agent, open_target: Callable[..., Target]) -> None:
    target = open_target()
    _, local, remote = load(initiator, target, 2)
    target.stop()
    transfer = initiator.write(local, to=remote)
    with pytest.raises(MemoryInUseError, match="wait for it or cancel it"):
        initiator.deregister(local, timeout=0.1)
    transfer.cancel()
    ended(transfer)
    initiator.deregister(local)


@pytest.mark.usefixtures("tcp")
def test_a_dropped_handle_keeps_its_memory_until_the_end(initiator: Agent, open_target: Callable[..., Target]) -> None:
    target = open_target()
    memory, local, remote = load(initiator, target, 2)
    target.stop()
    initiator.write(local, to=remote, notify=b"arrived")
    target.resume()
    assert target.ask("note", PROMPT) == ["initiator", "arrived", True]
    assert target.ask("count", 2) == [SIZE]
    assert memory[0] == 2


@pytest.mark.usefixtures("tcp")
def test_closing_the_agent_ends_what_is_stuck(open_target: Callable[..., Target]) -> None:
    target = open_target()
    initiator = Agent("initiator", devices="lo", grace=0.3)
    memory, local, remote = load(initiator, target, 2)
    target.stop()
    transfer = initiator.write(local, to=remote)
    started = time.monotonic()
    initiator.close(timeout=5)
    assert time.monotonic() - started < PROMPT
    assert transfer.state.has_ended
    memory[:] = 9
    target.resume()
    assert target.ask("count", 9) == [0]


def test_deregistering_while_a_peer_writes(
    initiator: Agent, open_target: Callable[..., Target], transport: str
) -> None:
    target = open_target()
    _, local, remote = load(initiator, target, 2)
    transfers = [initiator.write(local, to=remote, deadline=PROMPT) for _ in range(3)]
    target.ask("deregister")
    for transfer in transfers:
        error = end_of(transfer)
        assert error is None or error.reason, transport
    assert target.ask("count", 1, 2)[1] >= 0  # the target lives: its memory stayed mapped
    peer = initiator.load_peer(bytes.fromhex(target.ask("card")))
    with pytest.raises(LookupError):
        peer["memory"]
    with pytest.raises(LookupError):
        initiator.write(local, to=remote)
