from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MetadataDecodeError
from trunkline.metadata import notification
from trunkline.metadata.container import MAGIC, pack_field
from trunkline.metadata.notification import decode_notification, encode_notification
from trunkline.testing.strategies import agent_names


@given(agent_names, st.binary(max_size=100))
def test_everything_comes_back(sender: str, message: bytes) -> None:
    assert decode_notification(encode_notification(sender, message)) == (sender, message)


def test_the_bytes_are_nixls() -> None:
    assert encode_notification("ab", b"") == b"nixlSerDes|name\x02\0\0\0\0\0\0\0ab|msg\0\0\0\0\0\0\0\0|"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        encode_notification("a", b"x")[:-1],
        encode_notification("a", b"x") + b"x",
        encode_notification("", b"x"),
        encode_notification("a" * 256, b"x"),
        MAGIC + pack_field(b"name", b"\xff") + pack_field(b"msg", b"x"),
        MAGIC + pack_field(b"msg", b"x") + pack_field(b"name", b"a"),
    ],
)
def test_refuses(data: bytes) -> None:
    with pytest.raises(MetadataDecodeError, match=f"notification of {len(data)} bytes"):
        decode_notification(data)


def test_refuses_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_notification("a", b"x" * 10)
    monkeypatch.setattr(notification, "MAX_BYTES", len(data) - 1)
    with pytest.raises(MetadataDecodeError, match="at most"):
        decode_notification(data)
