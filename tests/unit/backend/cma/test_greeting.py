from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.backend.plugins.cma.greeting import (
    Greeting,
    decode_greeting,
    decode_info,
    encode_greeting,
    encode_info,
    socket_name,
)
from trunkline.errors import MetadataDecodeError

KEY = bytes(range(16))


def test_an_info_is_read_back_and_names_a_socket() -> None:
    info = encode_info(KEY)
    assert info == b"TLCM\x01" + KEY
    assert decode_info("decode-0", info) == KEY
    assert socket_name(KEY) == b"trunkline-cma-000102030405060708090a0b0c0d0e0f"


def test_an_info_of_a_later_version_is_no_error() -> None:
    assert decode_info("decode-0", b"TLCM\x02" + bytes(100)) is None


@pytest.mark.parametrize(
    "info",
    [
        b"",
        b"TLCM",
        b"TLCM\x00" + KEY,
        b"XLCM\x01" + KEY,
        b"TLCM\x01" + KEY[:-1],
        b"TLCM\x01" + KEY + b"x",
        b"TLCM\x02" + bytes(252),
    ],
)
def test_anything_else_is_refused_by_name(info: bytes) -> None:
    with pytest.raises(MetadataDecodeError, match="peer 'decode-0'"):
        decode_info("decode-0", info)


@given(st.integers(0, 2**64 - 1), st.binary(min_size=16, max_size=16), st.text(min_size=1, max_size=60))
def test_a_greeting_is_read_back(address: int, nonce: bytes, agent: str) -> None:
    greeting = Greeting(address, nonce, agent)
    assert decode_greeting(encode_greeting(greeting)) == greeting


@given(st.binary(max_size=600))
def test_no_bytes_are_more_than_no_greeting(data: bytes) -> None:
    assert decode_greeting(data) is None
    head = encode_greeting(Greeting(1, KEY, "a"))
    for mutant in (head[: len(data) % len(head)], head[:-1] + b"\xff" + data, data[:4] + head[4:]):
        read = decode_greeting(mutant)
        assert read is None or encode_greeting(read) == mutant
