"""Damaged input of every format: accepted, or refused by name, in bounded memory and time."""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.mutants import mutants, run
from tests.fuzz.mutation import DELIMITERS, NUMBERS, mutate
from tests.fuzz.target import BLOBS, Target, try_bytes
from tests.fuzz.targets import TARGETS

from trunkline.memory.kind import MemoryKind
from trunkline.metadata.codec import decode, encode
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypothesis.strategies import DataObject

ROOT = Path(__file__).parents[2]

ALLOCATED_ANYWAY = 64 << 10
"""Bytes that messages, errors and small objects may take whatever the input."""

QUICK = 1_000
"""Mutants of each format in `make test`."""

SOAK = 60_000
"""Mutants of each format in `make soak`."""

every_format = pytest.mark.parametrize("name", TARGETS)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "trunkline")


def test_they_are_ten_thousand_and_a_million() -> None:
    assert len(TARGETS) * QUICK > 10_000
    assert len(TARGETS) * SOAK > 1_000_000


@every_format
def test_seeds_are_accepted(name: str) -> None:
    """The first of each format is whole; others may be such as are refused."""
    assert try_bytes(TARGETS[name], TARGETS[name].seeds[0])


@every_format
def test_mutants_are_accepted_or_refused_by_name(name: str) -> None:
    assert run(TARGETS[name], QUICK, seed=1) > 0


@every_format
@given(st.data())
@settings(max_examples=30)
def test_no_example_of_hypothesis_is_a_bug(name: str, data: DataObject) -> None:
    """Hypothesis tries less, and shrinks what fails."""
    target = TARGETS[name]
    seeds = st.sampled_from(target.seeds)
    mutated = st.builds(mutate, seeds, seeds, st.randoms(use_true_random=False))
    try_bytes(target, data.draw(mutated | st.binary(max_size=100)))


@every_format
def test_every_length_and_count_blown_up(name: str) -> None:
    target = TARGETS[name]
    for seed in sorted(target.seeds, key=len)[:3]:
        for at in range(min(len(seed) - 7, 350)):
            for number in NUMBERS:
                try_bytes(target, seed[:at] + struct.pack("<Q", number) + seed[at + 8 :])


@pytest.mark.soak
@every_format
def test_a_million_mutants_in_bounded_memory_and_time(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.mutants", name, "2", str(SOAK)],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"repeat it with python -m tests.fuzz.mutants {name} 2 {SOAK}:\n{ended.stderr}"
    print(ended.stdout, end="")


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def peak_of(target: Target, data: bytes) -> int:
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    with contextlib.suppress(*target.errors):
        target.read(data)
    return tracemalloc.get_traced_memory()[1] - before


@every_format
@pytest.mark.usefixtures("traced")
def test_mutants_cost_no_more_memory_than_their_size_justifies(name: str) -> None:
    target = TARGETS[name]
    for mutant in mutants(target, 300, seed=3):
        assert peak_of(target, mutant) <= ALLOCATED_ANYWAY + target.cost * len(mutant), mutant.hex()


@every_format
@pytest.mark.usefixtures("traced")
def test_parts_repeated_cost_no_more_memory_than_their_size_justifies(name: str) -> None:
    target = TARGETS[name]
    for delimiter in DELIMITERS:
        parts = target.seeds[0].split(delimiter)
        for at in range(min(len(parts), 6)):
            count = (100 << 10) // (len(parts[at]) + 1)
            data = delimiter.join([*parts[:at], *parts[at : at + 1] * count, *parts[at + 1 :]])
            assert peak_of(target, data) <= ALLOCATED_ANYWAY + target.cost * len(data), (delimiter, at)


@pytest.mark.parametrize("repeated", ["a", "://", "status code: ", "HttpError { kind: ", "retries: 1, ", "<Code>", " "])
def test_an_answer_of_a_store_takes_no_longer_than_its_size_justifies(repeated: str) -> None:
    """With a quadratic search it would be minutes."""
    data = repeated.encode() * ((1 << 20) // len(repeated))
    began = time.thread_time()
    assert try_bytes(TARGETS["store-answer"], data)
    assert try_bytes(TARGETS["store-answer"], b"Generic error\n\nDebug source: " + data)
    assert time.thread_time() - began < 5


DECODE = Target(decode, BLOBS)


@pytest.mark.usefixtures("traced")
def test_metadata_of_nixl_cost_no_more_memory_than_their_size_justifies() -> None:
    for mutant in mutants(DECODE, 600, seed=3):
        assert peak_of(DECODE, mutant) <= ALLOCATED_ANYWAY + DECODE.cost * len(mutant)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("sizes", [[0], [11], [0, 1, 2]])
def test_large_metadata_costs_no_more_memory_than_its_size_justifies(sizes: list[int]) -> None:
    count = 20_000
    rows = np.ones((count, 3), dtype=np.uint64)
    keys = RemoteKeys.of([bytes(sizes[row % len(sizes)]) for row in range(count)])
    data = encode(AgentMetadata("a", {}, (SectionMetadata("UCX", MemoryKind.DRAM, rows, keys),)))
    assert peak_of(DECODE, data) <= DECODE.cost * len(data)
