from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.coordination.record import (
    MAX_CONTENT_SIZE,
    MAX_RECORD_SIZE,
    Parcel,
    RunRecord,
    SeatRecord,
    decode_number,
    decode_parcel,
    decode_run,
    decode_seat,
    decode_value,
    encode_parcel,
    encode_record,
    encode_value,
    pack_list,
)
from trunkline.errors import ConfigurationError, MetadataDecodeError
from trunkline.process import local_process

TOKEN = "0123456789abcdef" * 2

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(values)
def test_values_arrive_as_they_were_sent(value: object) -> None:
    found = decode_value(encode_value(value, "test"), "test")
    assert found == value
    assert type(found) is type(value)


@given(st.lists(values, max_size=5))
def test_encoded_values_are_packed_without_being_read(items: list[object]) -> None:
    assert decode_value(pack_list([encode_value(item, "test") for item in items]), "test") == items


@pytest.mark.parametrize("value", [object(), 2**64, -(2**63) - 1, {1j}, lambda: None, "\ud800"])
def test_what_can_not_be_sent_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"broadcast from 0: a .* that can't be sent"):
        encode_value(value, "broadcast from 0")


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(ConfigurationError, match="can't be sent"):
        encode_value(value, "test")


def test_too_large_a_value_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at most 67108864 can be sent"):
        encode_value(bytes(MAX_CONTENT_SIZE), "test")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(MetadataDecodeError):
        decode_run("/key", data)
    with suppress(MetadataDecodeError):
        decode_parcel("/key", data)
    with suppress(MetadataDecodeError):
        decode_value(data, "value")
    assert isinstance(decode_seat("/key", data), SeatRecord)


def test_records_are_read_as_they_were_written() -> None:
    run = RunRecord(TOKEN, 2, 5, (5, 6))
    assert decode_run("/key", encode_record(run)) == run
    seat = SeatRecord(local_process(), "left")
    assert decode_seat("/key", encode_record(seat)) == seat
    parcel = Parcel(7, "barrier", b"\0", 3, "why")
    assert decode_parcel("/key", encode_parcel(parcel)) == parcel


@pytest.mark.parametrize(
    "data",
    [
        b'{"token":"../../x","size":2,"founder":5}',
        b'{"token":"0123456789abcdef0123456789abcdef","size":0,"founder":5}',
        b'{"token":"0123456789abcdef0123456789abcdef","size":1025,"founder":5}',
        b'{"token":"0123456789abcdef0123456789abcdef","size":2,"founder":0}',
        b'{"token":"0123456789abcdef0123456789abcdef","size":2,"founder":5,"members":[5]}',
    ],
)
def test_runs_that_can_not_be_are_refused(data: bytes) -> None:
    with pytest.raises(MetadataDecodeError, match="/key"):
        decode_run("/key", data)


def test_what_is_too_long_is_not_read() -> None:
    with pytest.raises(MetadataDecodeError, match=f"at most {MAX_RECORD_SIZE} are read"):
        decode_parcel("/key", bytes(MAX_RECORD_SIZE + 1))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(MetadataDecodeError):
        decode_value(b"\x91" * 100_000 + b"\x00", "value")


@pytest.mark.parametrize("value", ["1", None, b"", [1]])
def test_only_numbers_are_numbers(value: object) -> None:
    with pytest.raises(MetadataDecodeError):
        decode_number(encode_value(value, "test"), "rank 1")
    assert decode_number(encode_value(-math.inf, "test"), "rank 1") == -math.inf
