"""The messages of NIXL's listeners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MetadataDecodeError
from trunkline.exchange.nixl_message import INVALIDATE, LOAD, SEND, NixlMessage, agent_name, decode_message
from trunkline.metadata.key import is_agent_name


def test_they_are_nixl_s() -> None:
    assert NixlMessage(SEND).encode() == b"NIXLCOMM:SEND"
    assert NixlMessage(LOAD, b"x").encode() == b"NIXLCOMM:LOADx"
    assert NixlMessage(INVALIDATE, b"a").encode() == b"NIXLCOMM:INVLa"


@given(st.binary(max_size=100))
def test_metadata_come_back_whatever_they_hold(body: bytes) -> None:
    for each in (body, body + b"NIXLCOMM:INVLb"):
        assert decode_message(NixlMessage(LOAD, each).encode()) == (LOAD, each)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"NIXLCOMM:" + tail))
def test_any_bytes_are_a_message_or_refused(payload: bytes) -> None:
    try:
        message = decode_message(payload)
    except MetadataDecodeError:
        return
    assert message.encode() == payload
    assert message.verb != INVALIDATE or is_agent_name(agent_name(message.body))


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (b"HTTP", "magic"),
        (b"NIXLCOMM", "magic"),
        (b"NIXLCOMM:", "verb"),
        (b"NIXLCOMM:load", "verb"),
        (b"NIXLCOMM:SENDx", "body"),
        (b"NIXLCOMM:INVL", "name"),
        (b"NIXLCOMM:INVLa/b", "name"),
        (b"NIXLCOMM:INVL" + b"x" * 256, "name"),
    ],
)
def test_what_is_wrong_is_said(payload: bytes, field: str) -> None:
    with pytest.raises(MetadataDecodeError) as raised:
        decode_message(payload)
    assert raised.value.field == field
