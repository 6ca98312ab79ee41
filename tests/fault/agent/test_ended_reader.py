"""The end of an agent that was reading ends the agent that it read from no more than the end of any other peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.fault.agent.conftest import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fault.agent.conftest import Target

    from trunkline import Agent

PROMPT = 20.0
"""Seconds; far above what anything here takes."""


@pytest.mark.usefixtures("tcp")
@pytest.mark.parametrize("end", ["kill", "close"])
def test_a_reader_that_ends_before_it_is_answered(
    initiator: Agent, open_target: Callable[..., Target], end: str
) -> None:
    """The target finds its request after the reader's end: UCX 1.22 aborted, since no answer can be sent (ADR 11)."""
    target, reader = open_target(), open_target("reader")
    card = target.ask("card")
    reader.ask("hail", card)
    assert target.ask("note", PROMPT) == ["reader", "here", True]
    target.stop()
    reader.ask("read", "target")
    getattr(reader, end)()
    target.resume()
    memory = np.zeros(SIZE, np.uint8)
    peer = initiator.load_peer(bytes.fromhex(card))
    initiator.read(peer["memory"], into=initiator.register(memory)).wait(PROMPT)
    assert np.count_nonzero(memory == 1) == SIZE
    assert target.ask("count", 1) == [SIZE]
