from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.unit.transfer.conftest import BLOCK, request_of

from trunkline.backend.contract import Operation
from trunkline.errors import TransferCancelledError, TransferDeadlineError, TransferError
from trunkline.transfer.failure import describe, explain
from trunkline.transfer.state import State

if TYPE_CHECKING:
    from tests.unit.transfer.conftest import Bench

    from trunkline.transfer.handle import TransferHandle


def explained(handle: TransferHandle, state: State = State.FAILED, expired: float | None = None) -> TransferError:
    return explain(handle._plan, handle._request, handle.target, state, expired=expired)


def test_the_direction_is_that_of_the_bytes(bench: Bench) -> None:
    plan = bench.read(0, 2)._plan
    assert describe(plan, "p", State.DONE) == f"<READ {2 * BLOCK} bytes in 2 blocks from 'p': DONE>"
    write = replace(plan, posting=replace(plan.posting, operation=Operation.WRITE))
    assert describe(write, "p", State.POSTED) == f"<WRITE {2 * BLOCK} bytes in 2 blocks to 'p': POSTED>"


@pytest.mark.parametrize(
    ("state", "expired", "kind", "why"),
    [
        (State.CANCELLED, None, TransferCancelledError, "it was cancelled"),
        (State.FAILED, 0.25, TransferDeadlineError, "its deadline of 0.25 s passed"),
        (State.FAILED, None, TransferError, "the transport says: reset by peer"),
    ],
)
def test_the_cause_decides_the_error(
    bench: Bench, state: State, expired: float | None, kind: type[TransferError], why: str
) -> None:
    handle = bench.read(0, 2, 4).post()
    request_of(handle).advance(1)
    request_of(handle).fail("reset by peer")
    error = explained(handle, state, expired)
    assert type(error) is kind
    assert str(error).endswith(f"{state.name}>: 2 of 3 blocks may not have arrived; {why}")
    assert error.failed is not None
    assert error.failed.tolist() == [1, 2]
    assert (error.reason, error.context["agent"]) == ("reset by peer", "prefill-0")


def test_a_transport_that_says_nothing_leaves_what_is_known_of_the_peer(bench: Bench) -> None:
    handle = bench.read(0).post()
    request_of(handle).fail("")
    assert str(explained(handle)).endswith("the transport says: nothing")
    bench.target.gone = "it withdrew"
    assert str(explained(handle)).endswith("the transport says: it withdrew")
