"""Streams of frames, cut anywhere, and bytes that are none."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MetadataDecodeError
from trunkline.exchange.frame import FrameReader, pack_frame

MAX = 300


def read(stream: bytes, cuts: list[int]) -> tuple[list[bytes], int]:
    """Return the payloads of a stream that arrives in pieces, and how many bytes are left."""
    reader = FrameReader(MAX)
    payloads = []
    ends = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in pairwise(ends):
        reader.feed(stream[start:end])
        while (payload := reader.take()) is not None:
            payloads.append(payload)
    return payloads, reader.held


@given(st.lists(st.binary(min_size=1, max_size=MAX), max_size=8), st.lists(st.integers(0, 1 << 16), max_size=12))
def test_payloads_come_back_however_the_stream_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    assert read(b"".join(map(pack_frame, payloads)), cuts) == (payloads, 0)


@given(st.binary(max_size=2000), st.lists(st.integers(0, 1 << 16), max_size=12))
def test_any_bytes_are_payloads_or_refused(stream: bytes, cuts: list[int]) -> None:
    """What is read and what is held are the stream; and how it was cut makes no difference."""
    results = []
    for pieces in ([], cuts):
        try:
            payloads, held = read(stream, pieces)
        except MetadataDecodeError as error:
            results.append([error.field.encode()])
        else:
            assert b"".join(map(pack_frame, payloads)) == stream[: len(stream) - held]
            assert held < 8 + MAX
            results.append(payloads)
    assert results[0] == results[1]


@pytest.mark.parametrize("size", [0, MAX + 1, 1 << 30, (1 << 64) - 1])
def test_a_length_out_of_bounds_is_refused_at_once(size: int) -> None:
    reader = FrameReader(MAX)
    with pytest.raises(MetadataDecodeError, match=f"a frame of {size:,} bytes: 1 to 300 are read"):
        reader.feed(size.to_bytes(8, "little"))


def test_the_next_frame_s_length_is_looked_at_when_its_turn_comes() -> None:
    reader = FrameReader(MAX)
    reader.feed(pack_frame(b"good") + bytes(8))
    assert reader.take() == b"good"
    with pytest.raises(MetadataDecodeError):
        reader.take()
