"""Damaged input: the decoders accept it or raise MetadataDecodeError, and allocate no more than it justifies."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.errors import MetadataDecodeError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.card import Card, decode_card, encode_card
from trunkline.metadata.catalog import Catalog, TensorEntry, decode_catalog, encode_catalog
from trunkline.metadata.codec import decode, encode
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata
from trunkline.metadata.notification import decode_notification, encode_notification

if TYPE_CHECKING:
    from collections.abc import Callable

BLOBS = sorted((Path(__file__).parents[2] / "data" / "nixl-blobs").glob("*.bin"))

ALLOCATED_PER_BYTE = 4
"""Bytes of arrays and objects that one byte of input may cost at its peak; 2 were seen."""

ALLOCATED_ANYWAY = 32 << 10
"""Bytes that messages, errors and small objects may take whatever the input."""

NUMBERS = (0, 1, 2, 23, 24, 25, 33, 255, 2**16, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 25, 2**64 - 1)


def various() -> AgentMetadata:
    """Metadata with several backends, kinds and sizes of keys."""
    rows = np.array([(4096 * row, 4096, row % 3) for row in range(40)], dtype=np.uint64)
    keys = RemoteKeys.of([bytes(row % 4) for row in range(40)])
    owners = (("UCX", MemoryKind.DRAM), ("UCX", MemoryKind.VRAM), ("OBJ", MemoryKind.OBJECT))
    return AgentMetadata("a", {"UCX": b"x" * 30, "OBJ": b"y"}, tuple(SectionMetadata(*it, rows, keys) for it in owners))


def metadata(data: bytes) -> None:
    # There is one way to write each metadata, so what is accepted must be exactly what is written.
    assert encode(decode(data)) == data


def notification(data: bytes) -> None:
    assert encode_notification(*decode_notification(data)) == data


def catalog(data: bytes) -> None:
    encode_catalog(decode_catalog(data))


def card(data: bytes) -> None:
    encode_card(decode_card(data))


CATALOG = encode_catalog(
    Catalog(
        tuple(TensorEntry(f"kv/{row}", MemoryKind.DRAM, "BF16", (4, 16), 4096 * row, 128, 0) for row in range(8)),
        {"kv": tuple(f"kv/{row}" for row in range(8))},
    )
)
CARD = encode_card(Card(agent="a", incarnation="0" * 32, metadata=b"m" * 40, catalog=b"c", attributes={"a": "b"}))

SEEDS: dict[Callable[[bytes], None], list[bytes]] = {
    metadata: [*(path.read_bytes() for path in BLOBS if path.stat().st_size < 1000), encode(various())],
    notification: [encode_notification("agent", b"message"), encode_notification("a", b"")],
    catalog: [CATALOG],
    card: [CARD],
}


def mutate(seed: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return the seed with one to four wounds."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(data) + 1)
        span = chance.choice((1, 2, 8, 9, 44, 100))
        match chance.randrange(7):
            case 0:  # truncate
                del data[at:]
            case 1:  # flip a bit
                if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
            case 2:  # any byte
                data[at : at + 1] = chance.randbytes(1)
            case 3:  # a length or a count
                data[at : at + 8] = struct.pack("<Q", chance.choice(NUMBERS))
            case 4:  # leave out
                del data[at : at + span]
            case 5:  # repeat
                data[at:at] = data[at : at + span]
            case _:  # go on with another
                data[at:] = other[chance.randrange(len(other)) :]
    return bytes(data)


def run(count: int, seed: int) -> int:
    """Try mutants of all seeds in turn; return how many were accepted."""
    chance = random.Random(seed)
    accepted = 0
    tries = [(check, data) for check, seeds in SEEDS.items() for data in seeds]
    for number in range(count):
        check, data = tries[number % len(tries)]
        mutant = mutate(data, chance.choice(SEEDS[check]), chance)
        try:
            check(mutant)
            accepted += 1
        except MetadataDecodeError as error:
            if not 0 <= error.offset <= len(mutant):
                pytest.fail(f"{check.__name__} names an impossible offset in {error!r} for {mutant.hex()}")
        except Exception as error:
            pytest.fail(f"{check.__name__} raised {error!r} for {mutant.hex()}")
    return accepted


def test_ten_thousand_mutants_are_accepted_or_refused_by_name() -> None:
    accepted = run(10_000, seed=1)
    assert 100 < accepted < 5_000  # wounds of payloads pass, others don't


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_million_mutants_are_accepted_or_refused_by_name(seed: int) -> None:
    assert run(100_000, seed) > 1_000


def peak_of(check: Callable[[bytes], object], data: bytes) -> int:
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    with contextlib.suppress(MetadataDecodeError):
        check(data)
    return tracemalloc.get_traced_memory()[1] - before


def test_mutants_cost_no_more_memory_than_their_size_justifies() -> None:
    decoders: dict[Callable[[bytes], object], list[bytes]] = {
        decode: [*SEEDS[metadata], *(path.read_bytes() for path in BLOBS)],
        decode_notification: SEEDS[notification],
        decode_catalog: SEEDS[catalog],
        decode_card: SEEDS[card],
    }
    chance = random.Random(3)
    tracemalloc.start()
    try:
        for check, seeds in decoders.items():
            for seed in seeds:
                for _ in range(100):
                    mutant = mutate(seed, chance.choice(seeds), chance)
                    assert peak_of(check, mutant) <= ALLOCATED_ANYWAY + ALLOCATED_PER_BYTE * len(mutant)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("sizes", [[0], [11], [0, 1, 2]])
def test_large_metadata_costs_no_more_memory_than_its_size_justifies(sizes: list[int]) -> None:
    count = 20_000
    rows = np.ones((count, 3), dtype=np.uint64)
    keys = RemoteKeys.of([bytes(sizes[row % len(sizes)]) for row in range(count)])
    data = encode(AgentMetadata("a", {}, (SectionMetadata("UCX", MemoryKind.DRAM, rows, keys),)))
    tracemalloc.start()
    try:
        assert peak_of(decode, data) <= ALLOCATED_PER_BYTE * len(data)
    finally:
        tracemalloc.stop()


def test_every_length_and_count_blown_up() -> None:
    seed = SEEDS[metadata][1]
    for at in range(len(seed) - 7):
        for number in NUMBERS:
            data = seed[:at] + struct.pack("<Q", number) + seed[at + 8 :]
            try:
                assert encode(decode(data)) == data
            except MetadataDecodeError:
                continue
