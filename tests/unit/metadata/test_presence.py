from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import ConfigurationError, MetadataDecodeError
from trunkline.metadata.presence import (
    MAX_CHUNKS,
    MAX_PRESENCE_SIZE,
    ChunksRecord,
    ContentRecord,
    LabelRecord,
    Presence,
    ProcessRecord,
    content_record,
    decode_presence,
    encode_presence,
)

INCARNATION = "0123456789abcdef0123456789abcdef"
CHUNKS = ChunksRecord("0123456789abcdef", 3)
FULL = Presence(
    incarnation=INCARNATION,
    process=ProcessRecord("node-7", "9ce6856d-1e47-46df-bdbc-9f714de3a16a", 4711, "pid:[4026531836]", 235808),
    software="trunkline 0.1.0",
    backends=("UCX",),
    attributes={"role": "prefill"},
    state="draining",
    labels={
        "metadata": LabelRecord(5, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", 3),
    },
    catalog=content_record(b"x"),
)


def golden(name: str) -> bytes:
    return (Path(__file__).parents[2] / "data" / "golden" / f"{name}.json").read_bytes().strip()


def test_what_is_missing_has_a_default() -> None:
    presence = decode_presence(golden("presence-1-least"))
    assert presence == Presence(format=1, incarnation=INCARNATION)
    assert (presence.state, presence.labels, presence.catalog) == ("ready", {}, None)


def test_unknown_fields_survive_a_rewrite() -> None:
    presence = decode_presence(golden("presence-3-readable"))
    assert presence.unknown == {"zone": {"rack": 4}}
    rewritten = msgspec.structs.replace(presence, state="draining")
    again = decode_presence(encode_presence(rewritten))
    assert (again.unknown, again.state) == ({"zone": {"rack": 4}}, "draining")


def test_only_a_record_that_names_chunks_is_for_newer_readers() -> None:
    plain = content_record(b"x")
    chunked = msgspec.structs.replace(plain, chunks=CHUNKS)
    label = LabelRecord(plain.size, plain.sha256, 1)
    in_chunks = msgspec.structs.replace(label, chunks=CHUNKS)
    for labels, catalog, min_reader in (
        ({"metadata": label}, plain, 1),
        ({"metadata": in_chunks, "more": label}, None, 2),
        ({"metadata": label}, chunked, 2),
        ({}, None, 1),
    ):
        told = msgspec.structs.replace(FULL, min_reader=2).publishing(labels, catalog)
        assert (told.format, told.min_reader) == (2, min_reader)
        assert decode_presence(encode_presence(told)) == told


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=64)


@given(
    attributes=st.dictionaries(text.filter(bool), text, max_size=32),
    backends=st.lists(text.filter(bool), max_size=32).map(tuple),
    content=st.binary(max_size=100),
    pid=st.integers(0, 2**63 - 1),
)
def test_encoding_and_decoding_are_inverse(
    attributes: dict[str, str], backends: tuple[str, ...], content: bytes, pid: int
) -> None:
    record = content_record(content)
    presence = Presence(
        incarnation=INCARNATION,
        process=ProcessRecord(host="h", pid=pid),
        attributes=attributes,
        backends=backends,
        labels={"metadata": LabelRecord(record.size, record.sha256, 1)},
        catalog=record,
    )
    assert decode_presence(encode_presence(presence)) == presence
    assert record.describes(content)
    assert not record.describes(content + b"\0")


@pytest.mark.parametrize(
    "bad",
    [
        {"incarnation": "short"},
        {"incarnation": INCARNATION.upper()},
        {"incarnation": INCARNATION + "\n"},
        {"attributes": {"": "a"}},
        {"attributes": {"a" * 65: "a"}},
        {"attributes": {"a": "a" * 256}},
        {"attributes": {str(number): "" for number in range(33)}},
        {"attributes": {"a": 1}},
        {"attributes": {"a": "\ud800"}},
        {"backends": ("",)},
        {"backends": ("UCX",) * 33},
        {"labels": {str(number): LabelRecord(0, "0" * 64, 0) for number in range(65)}},
        {"labels": {"metadata": LabelRecord(-1, "0" * 64, 0)}},
        {"labels": {"metadata": LabelRecord(0, "0" * 63, 0)}},
        {"labels": {"metadata": LabelRecord(0, "0" * 64, 0, chunks=ChunksRecord("a/b", 1))}},
        {"labels": {"metadata": LabelRecord(0, "0" * 64, 0, chunks=ChunksRecord("", 1))}},
        {"labels": {"metadata": LabelRecord(0, "0" * 64, 0, chunks=ChunksRecord("a", 0))}},
        {"catalog": ContentRecord(0, "0" * 64, chunks=ChunksRecord("a", MAX_CHUNKS + 1))},
        {"state": "dancing"},
        {"software": "a" * 256},
        {"unknown": {"pad": "a" * MAX_PRESENCE_SIZE}},
    ],
)
def test_what_breaks_its_bounds_is_not_written(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="what the agent says about itself"):
        encode_presence(Presence(**{"incarnation": INCARNATION, **bad}))


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"{}",
        b'{"format":1,"min_reader":1}',
        b'{"format":1,"min_reader":-1,"incarnation":"' + INCARNATION.encode() + b'"}',
        b'{"format":true,"min_reader":1,"incarnation":"' + INCARNATION.encode() + b'"}',
        b'{"format":1,"min_reader":1e400,"incarnation":"' + INCARNATION.encode() + b'"}',
        b'{"format":1,"min_reader":1,"incarnation":"' + INCARNATION.encode() + b'","labels":[]}',
        b'{"format":1,"min_reader":1,"incarnation":"' + INCARNATION.encode() + b'","process":{"pid":"1"}}',
        b'{"a":' * 10_000,
        b"[" * 60_000,
        b" " * (MAX_PRESENCE_SIZE + 1),
    ],
)
def test_what_is_no_record_is_a_decode_error(bad: bytes) -> None:
    with pytest.raises(MetadataDecodeError, match="presence record"):
        decode_presence(bad)


@given(st.binary(max_size=200))
def test_noise_is_a_decode_error(noise: bytes) -> None:
    with pytest.raises(MetadataDecodeError):
        decode_presence(noise)


@given(st.data())
def test_a_damaged_record_decodes_or_is_a_decode_error(data: st.DataObject) -> None:
    content = bytearray(golden("presence-1"))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        presence = decode_presence(bytes(content))
    except MetadataDecodeError:
        return
    assert isinstance(presence, Presence)


def test_when_an_agent_was_opened_is_said_or_left_out() -> None:
    said = Presence(incarnation="1" * 32, opened_at=1_800_000_000.25)
    assert decode_presence(encode_presence(said)) == said
    assert b"opened_at" not in encode_presence(Presence(incarnation="1" * 32))
    with pytest.raises(ConfigurationError):
        encode_presence(Presence(incarnation="1" * 32, opened_at=1e12))  # no date that could be shown
