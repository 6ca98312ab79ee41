from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given

from trunkline.errors import ConfigurationError, MetadataDecodeError
from trunkline.metadata import card as card_module
from trunkline.metadata import container
from trunkline.metadata.card import FORMAT, MAGIC, Card, decode_card, encode_card, is_card
from trunkline.testing.strategies import cards

CARD = Card(agent="a", incarnation="0" * 32, metadata=b"m", catalog=b"c", attributes={"role": "decode"})
FIELDS = {**msgspec.structs.asdict(CARD), "format": 1, "min_reader": 1}


def pack(**changes: Any) -> bytes:
    return MAGIC + msgspec.msgpack.encode({**FIELDS, **changes})


@given(cards())
def test_everything_comes_back(card: Card) -> None:
    assert decode_card(encode_card(card)) == card


def test_cards_and_raw_metadata_are_told_apart() -> None:
    assert is_card(encode_card(CARD))
    assert not is_card(container.MAGIC + b"rest")
    assert not is_card(b"")


def test_unknown_fields_are_ignored() -> None:
    assert decode_card(pack(new={"a": [1]})) == CARD


@pytest.mark.parametrize("size", range(0, len(encode_card(CARD)), 3))
def test_a_card_cut_anywhere(size: int) -> None:
    with pytest.raises(MetadataDecodeError):
        decode_card(encode_card(CARD)[:size])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"nixlSerDes|", "no card"),
        (pack() + b"x", "trailing"),
        (pack(agent="a/b"), "no agent can be called 'a/b'"),
        (pack(incarnation="0" * 31), "regex"),
        (pack(incarnation="0" * 32 + "\n"), "regex"),
        (pack(metadata="text"), "Expected `bytes`"),
        (pack(catalog=5), "Expected `bytes | null`"),
        (pack(attributes={str(number): "" for number in range(33)}), "length <= 32"),
        (pack(attributes={"k" * 65: ""}), "length <= 64"),
        (pack(attributes={"k": "v" * 256}), "length <= 255"),
        (pack(attributes={"k": 1}), "Expected `str`"),
        (pack(min_reader=FORMAT + 1, agent=7), "for readers of format 2 and up; this is 1: update trunkline"),
        (MAGIC + b"\x91" * 100_000, "Expected `object`"),
        (MAGIC + b"\x81\xa1x" + b"\x91" * 100_000, "recursion"),
        (MAGIC + b"\x81\xa1\xff\x01", "bad card"),
        (MAGIC + b"\xdf\xff\xff\xff\xff", "truncated"),
        (MAGIC + b"\x81\xa8metadata\xc6\xff\xff\xff\xff", "truncated"),
    ],
)
def test_refuses(data: bytes, message: str) -> None:
    with pytest.raises(MetadataDecodeError, match=message):
        decode_card(data)


def test_refuses_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_module, "MAX_BYTES", 10)
    with pytest.raises(MetadataDecodeError, match="at most 10 are read"):
        decode_card(pack())


@pytest.mark.parametrize("change", [{"agent": "a/b"}, {"agent": "\ud800"}, {"attributes": {"": "x"}}])
def test_what_could_not_be_read_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="can't have such a card"):
        encode_card(msgspec.structs.replace(CARD, **change))
