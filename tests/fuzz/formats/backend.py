"""What a backend is given. UCX itself gets mutants in tests/fault/ucx."""

from __future__ import annotations

import sys

from tests.fuzz.target import BLOBS, Target
from tests.unit.backend.object.test_failure import REFUSED, SLOW_DOWN

from trunkline.backend.plugins.cma.greeting import Greeting, decode_greeting, decode_info, encode_greeting, encode_info
from trunkline.backend.plugins.object.failure import LONGEST, Redaction, explain
from trunkline.backend.plugins.ucx.address import check_worker_address, read_layout
from trunkline.backend.plugins.ucx.library import load_native
from trunkline.backend.plugins.ucx.remote_key import check_remote_keys
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.codec import decode
from trunkline.metadata.model import RemoteKeys

NONCE = b"n" * 16


def cma_info(data: bytes) -> None:
    key = decode_info("peer", data)
    assert key is None or encode_info(key) == data


def cma_greeting(data: bytes) -> None:
    found = decode_greeting(data)
    assert found is None or encode_greeting(found) == data


def path_mode(data: bytes) -> None:
    """Take apart the name of a segment of NIXL's: a path and how to open it, or a mere name."""
    from trunkline.backend.file import PathMode

    text = data.decode("utf-8", "surrogateescape")
    found = PathMode.parse(text)
    assert found is None or (found.path and text.partition(":")[2] == found.path and found.flags >= 0)


def store_answer(data: bytes) -> None:
    """Put what an object store answered into words."""
    said = explain(OSError(data.decode("utf-8", "replace")), Redaction({"secret_access_key": "TopSecret"}, {}))
    assert "TopSecret" not in said
    assert len(said) <= LONGEST
    assert "\n" not in said


def ucx_of(blob: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the worker addresses and remote keys in NIXL's own metadata."""
    found = decode(blob)
    return list(found.connections.values()), [key for section in found.sections for key in section.keys][:3]


ADDRESSES, REMOTE_KEYS = (sorted({each for blob in BLOBS for each in ucx_of(blob)[which]}) for which in (0, 1))


def worker_address(data: bytes) -> None:
    read_layout("peer", data)
    check_worker_address("peer", data, read_layout("us", ADDRESSES[0]))


def remote_key(data: bytes) -> None:
    check_remote_keys("peer", MemoryKind.DRAM, RemoteKeys.of([data, data]))


TARGETS = {
    "worker-address": Target(worker_address, ADDRESSES),
    "cma-info": Target(cma_info, [encode_info(NONCE)]),
    "cma-greeting": Target(cma_greeting, [encode_greeting(Greeting(2**47 - 4096, NONCE, "decode-0"))], ()),
    "store-answer": Target(
        store_answer,
        [text.encode() for text in (SLOW_DOWN, REFUSED, "TopSecret of http://h/b?sig=TopSecret is not known")],
        (),
        cost=64,
    ),
}

if sys.platform == "linux":  # where the native module is
    load_native()
    TARGETS["remote-key"] = Target(remote_key, REMOTE_KEYS)
    TARGETS["path-mode"] = Target(
        path_mode, [b"rw,direct,create:/mnt/nvme/cache", b"ro:/a", b"/just/a:name"], (), cost=32
    )
