from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.backend.plugins.ucx.address import (
    LARGEST,
    MOST_TRANSPORTS,
    check_worker_address,
    read_layout,
    worker_identity,
)
from trunkline.errors import MetadataDecodeError

UUID = bytes(range(1, 9))
TCP = b"\x19\xcf" + bytes(16)  # a transport's checksum and attributes in version 0
DEVICE = b"\x00\x82ab"  # memory domain 0, the last device, an address of two bytes
ADDRESS = b"\x20" + UUID + DEVICE + TCP + b"\x82cd"


def test_reads_both_versions() -> None:
    assert read_layout("peer", ADDRESS) == {0xCF19: (True, True)}
    version_1 = b"\x61\x02" + UUID + b"\x00\x82ab" + b"\x19\xcf" + bytes(8) + b"\x82cd"
    assert read_layout("peer", version_1) == {0xCF19: (True, True)}


def test_reads_names_client_ids_extensions_and_several_devices() -> None:
    address = (
        b"\x01\x07"  # version 1: name, identity, client id
        + UUID
        + UUID
        + b"\x03abc"
        + b"\x7f\x80\x1f\x20"  # a memory domain of its own byte, an address whose length is too
        + bytes(0x20)
        + b"\x01\x00"
        + bytes(8)
        + b"\x00"  # no address of its own
        + b"\x02\x00"
        + bytes(8)
        + b"\xbf\x40"
        + bytes(0x40)
        + b"\x86\xe0\x01\x02"  # the last device: number of paths and system device, no transports
    )
    assert read_layout("peer", address) == {1: (True, False), 2: (True, True)}


def test_a_worker_is_known_by_its_identity() -> None:
    version_1 = b"\x61\x02" + UUID + b"\x00\x82ab"
    assert worker_identity(ADDRESS) == worker_identity(version_1) == int.from_bytes(UUID, "little")
    assert worker_identity(b"\x01\x00abc") != worker_identity(b"\x01\x00abd")  # without one


@pytest.mark.parametrize(
    ("address", "what"),
    [
        (b"", "cut short"),
        (b"\x22" + ADDRESS[1:], "version is 2"),
        (ADDRESS[:-1], "cut short"),
        (ADDRESS + b"\0", "1 bytes are left over"),
        (b"\x20" + UUID + DEVICE + TCP + b"\xc2cd\x00\x80", "endpoints"),
        (b"\x20" + UUID + DEVICE + (TCP + b"\x00") * (MOST_TRANSPORTS + 1), f"more than {MOST_TRANSPORTS}"),
        (bytes(LARGEST + 1), f"at most {LARGEST}"),
    ],
)
def test_refuses_what_ucx_does_not_write(address: bytes, what: str) -> None:
    with pytest.raises(MetadataDecodeError, match=what) as caught:
        read_layout("decode-0", address)
    assert "'decode-0'" in str(caught.value)


def test_demands_the_addresses_that_we_have_too() -> None:
    ours = read_layout("us", ADDRESS)
    check_worker_address("peer", ADDRESS, ours)
    without = b"\x20" + UUID + DEVICE + TCP + b"\x80"
    with pytest.raises(MetadataDecodeError, match="0xcf19"):
        check_worker_address("peer", without, ours)
    check_worker_address("peer", without, {})
    without_device = b"\x20" + UUID + b"\x00\x80" + TCP + b"\x82cd"
    with pytest.raises(MetadataDecodeError, match="0xcf19"):
        check_worker_address("peer", without_device, ours)


@given(st.binary(max_size=200))
def test_never_raises_anything_else(address: bytes) -> None:
    with contextlib.suppress(MetadataDecodeError):
        read_layout("peer", address)
