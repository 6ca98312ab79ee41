"""The table is the specification; these tests say what it promises."""

from __future__ import annotations

import pytest

from trunkline.transfer.state import TRANSITIONS, Event, State

LOUD = {State.POSTED, State.CANCELLING}


def test_exactly_the_posted_and_the_cancelling_are_not_quiet() -> None:
    assert {state for state in State if not state.is_quiet} == LOUD


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.CANCELLED])
def test_every_end_is_quiet_and_can_be_posted_again(state: State) -> None:
    assert state.has_ended
    assert state.is_quiet
    assert TRANSITIONS[state, Event.POST] is State.POSTED


@pytest.mark.parametrize("state", sorted(LOUD))
def test_a_running_transfer_is_never_posted_twice(state: State) -> None:
    assert not state.has_ended
    assert (state, Event.POST) not in TRANSITIONS


def test_a_quiet_transfer_only_takes_a_post() -> None:
    assert {event for state, event in TRANSITIONS if state.is_quiet} == {Event.POST}


@pytest.mark.parametrize("state", sorted(LOUD))
def test_every_running_state_can_end_well_and_badly(state: State) -> None:
    assert TRANSITIONS[state, Event.COMPLETE] is State.DONE
    assert TRANSITIONS[state, Event.FAIL] is State.FAILED


def test_every_state_is_reached() -> None:
    assert {State.PREPARED, *TRANSITIONS.values()} == set(State)
