from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MetadataDecodeError
from trunkline.metadata.container import MAGIC, ContainerReader, pack_field, pack_number

if TYPE_CHECKING:
    from collections.abc import Callable

tags = st.text("abcXYZ", max_size=5).map(str.encode)


def reader_of(*fields: bytes) -> ContainerReader:
    return ContainerReader(MAGIC + b"".join(fields), "test value")


@given(st.lists(st.tuples(tags, st.binary(max_size=40)), max_size=6))
def test_fields_come_back_in_order(fields: list[tuple[bytes, bytes]]) -> None:
    reader = reader_of(*(pack_field(tag, value) for tag, value in fields))
    assert [reader.read(tag, min_size=0, max_size=40) for tag, _ in fields] == [value for _, value in fields]
    reader.finish()


def test_the_bytes_are_nixls() -> None:
    assert pack_field(b"t", b"U|X") == b"t\x03\0\0\0\0\0\0\0U|X|"
    assert pack_number(b"Conns", 258) == b"Conns\x08\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0|"


def test_numbers_texts_and_constants() -> None:
    reader = reader_of(pack_number(b"n", 2**64 - 1), pack_field(b"t", "ü".encode()), pack_field(b"", b"Mem"))
    assert reader.read_number(b"n", max_value=2**64 - 1) == 2**64 - 1
    assert reader.read_text(b"t", max_size=2) == "ü"
    reader.read_constant(b"", b"Mem")
    reader.finish()


FIELD = pack_field(b"tag", b"value")


@pytest.mark.parametrize(
    ("fields", "read", "message"),
    [
        (b"", lambda reader: reader.read(b"tag", max_size=5), "field 'tag' at byte 11: found b''"),
        (b"tux", lambda reader: reader.read(b"tag", max_size=5), "found b'tux'"),
        (FIELD[:10], lambda reader: reader.read(b"tag", max_size=5), "ends in the length"),
        (FIELD[:-1], lambda reader: reader.read(b"tag", max_size=5), "5 bytes, but only 5 bytes follow"),
        (FIELD[:-3], lambda reader: reader.read(b"tag", max_size=5), "5 bytes, but only 3 bytes follow"),
        (FIELD[:-1] + b"!", lambda reader: reader.read(b"tag", max_size=5), "at byte 27: .* not followed by '|'"),
        (FIELD, lambda reader: reader.read(b"tag", max_size=4), "5 bytes, where 1 to 4 are allowed"),
        (FIELD, lambda reader: reader.read(b"tag", min_size=6, max_size=9), "5 bytes, where 6 to 9 are allowed"),
        (pack_field(b"t", b""), lambda reader: reader.read(b"t", max_size=4), "0 bytes, where 1 to 4"),
        (b"tag" + b"\xff" * 8, lambda reader: reader.read(b"tag", max_size=4), f"a value of {2**64 - 1} bytes"),
        (FIELD, lambda reader: reader.read_constant(b"tag", b"other"), "found b'value' where b'other' belongs"),
        (FIELD, lambda reader: reader.read_number(b"tag", max_value=9), "5 bytes, where 8 to 8"),
        (pack_number(b"n", 7), lambda reader: reader.read_number(b"n", max_value=6), "7 is more than the 6"),
        (pack_field(b"t", b"\xff"), lambda reader: reader.read_text(b"t", max_size=9), r"b'\\xff' is not UTF-8"),
        (FIELD, lambda reader: reader.finish(), "17 bytes follow the last field"),
    ],
)
def test_refuses(fields: bytes, read: Callable[[ContainerReader], object], message: str) -> None:
    reader = reader_of(fields)
    with pytest.raises(MetadataDecodeError, match=message) as caught:
        read(reader)
    assert caught.value.field
    assert 11 <= caught.value.offset <= 11 + len(fields)


@pytest.mark.parametrize("data", [b"", b"nixlSerDes", b"NIXLSerDes|", b"trunkline-card|"])
def test_refuses_other_magic(data: bytes) -> None:
    with pytest.raises(MetadataDecodeError, match=r"test value of .* field 'magic' at byte 0"):
        ContainerReader(data, "test value")
