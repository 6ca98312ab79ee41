from __future__ import annotations

import sys

import numpy as np
import pytest

from trunkline.backend.plugins.ucx.library import load_native
from trunkline.backend.plugins.ucx.remote_key import check_remote_keys
from trunkline.errors import MetadataDecodeError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.model import RemoteKeys

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")

HOST = bytes.fromhex("01000000000000000000ff")  # one memory domain with nothing to say
TWO_DOMAINS = bytes.fromhex("0300000000000000000201020003ff")[:-2] + b"\xff"


@pytest.fixture(autouse=True, scope="module")
def _native() -> None:
    load_native()


def test_passes_genuine_keys() -> None:
    check_remote_keys("peer", MemoryKind.DRAM, RemoteKeys.of([HOST, TWO_DOMAINS, HOST]))
    check_remote_keys("peer", MemoryKind.VRAM, RemoteKeys.of([HOST[:8] + b"\x01" + HOST[9:]]))
    check_remote_keys("peer", MemoryKind.DRAM, RemoteKeys.of([]))


@pytest.mark.parametrize(
    "key",
    [
        b"",
        HOST[:9],
        HOST[:8] + b"\x01" + HOST[9:],  # CUDA memory in a section of DRAM
        HOST[:8] + b"\xf7" + HOST[9:],
        b"\xff" * 8 + HOST[8:],  # 64 domains, one described
        HOST[:9] + b"\x03\x01",  # a domain that is longer than the key
        HOST + bytes(100),
        HOST[:9] + bytes(5000),
    ],
)
def test_names_the_first_bad_key(key: bytes) -> None:
    with pytest.raises(MetadataDecodeError, match="remote key 1 of 3") as caught:
        check_remote_keys("decode-0", MemoryKind.DRAM, RemoteKeys.of([HOST, key, key]))
    assert caught.value.offset == len(HOST)


def test_refuses_offsets_outside_the_buffer() -> None:
    for offset, size in ((-1, 11), (1, 11), (0, -3), (2**62, 11)):
        keys = RemoteKeys(HOST, np.array([offset], np.int64), np.array([size], np.int64))
        with pytest.raises(MetadataDecodeError):
            check_remote_keys("peer", MemoryKind.DRAM, keys)
