"""Two agents in one process that find each other in an in-memory store and move bytes through UCX."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NamedTuple

import pytest

from trunkline import Agent

if TYPE_CHECKING:
    from collections.abc import Iterator


class Pair(NamedTuple):
    prefill: Agent
    decode: Agent
    store: str


@pytest.fixture
def store() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def pair(store: str) -> Iterator[Pair]:
    with (
        Agent("prefill-0", store=store, devices="lo", attributes={"role": "prefill"}) as prefill,
        Agent("decode-0", store=store, devices="lo") as decode,
    ):
        yield Pair(prefill, decode, store)
