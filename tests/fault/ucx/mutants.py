"""Feeds mutated bytes to UCX in a process of its own: ``python mutants.py address|key SEED COUNT``.

What the checks let through goes on to UCX. Prints how many did, or dies.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from trunkline.backend.contract import ConnectionInfo, Operation, Posting
from trunkline.backend.plugins.ucx import UcxBackend
from trunkline.errors import MetadataDecodeError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.model import RemoteKeys
from trunkline.testing.link import segments_of


def mutate(genuine: bytes, random: np.random.Generator) -> bytes:
    data = bytearray(genuine)
    kinds = int(random.choice([2, 6]))  # half of them keep the length, and so pass more checks
    for _ in range(int(random.integers(1, 5))):
        at = int(random.integers(0, len(data))) if data else 0
        match int(random.integers(0, kinds)):
            case 0 if data:
                data[at] ^= 1 << int(random.integers(0, 8))
            case 1 if data:
                data[at] = int(random.choice([0, 1, 0x7F, 0x80, 0xFF]))
            case 2:
                data[at:at] = random.bytes(int(random.integers(1, 9)))
            case 3:
                del data[at : at + int(random.integers(1, 9))]
            case 4:
                del data[at:]
            case _:
                data[at : at + 4] = random.bytes(4)
    return bytes(data)


def try_address(backend: UcxBackend, address: bytes) -> bool:
    """Make an endpoint and flush. Nothing is written: a forged address may name a third process's memory."""
    try:
        peer = backend.load_peer("mutant", ConnectionInfo(address))
    except MetadataDecodeError:
        return False
    nothing = np.empty(0, np.uint64)
    posting = Posting(Operation.READ, nothing, nothing, nothing, np.empty(0, np.int32), np.empty(0, np.int32))
    request = backend.prepare(posting, peer)
    request.post()
    request.wait(time.monotonic() + 0.002)
    backend.notify(peer, b"hello").wait(time.monotonic() + 0.002)
    peer.abort("enough")
    peer.close()
    return True


def try_key(backend: UcxBackend, target: UcxBackend, memory: np.ndarray, key: bytes) -> bool:
    """Unpack and read nothing with it."""
    peer = backend.load_peer("mutant", target.connection_info())
    try:
        slots = peer.load_segments(MemoryKind.DRAM, segments_of(memory), RemoteKeys.of([key]))
    except MetadataDecodeError:
        peer.close()
        return False
    local = backend.register(MemoryKind.DRAM, segments_of(memory))
    at = np.array([memory.ctypes.data], np.uint64)
    request = backend.prepare(Posting(Operation.READ, at, at, np.zeros(1, np.uint64), local, slots), peer)
    request.post()
    request.wait(time.monotonic() + 0.01)
    backend.deregister(local)
    peer.close()
    return True


def main(what: str, seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    backend, target = UcxBackend("initiator", devices="lo"), UcxBackend("target", devices="lo")
    memory = np.zeros(4096, np.uint8)
    genuine_key = target.remote_keys(target.register(MemoryKind.DRAM, segments_of(memory)))[0]
    genuine_address = target.connection_info()
    passed = 0
    for number in range(count):
        if what == "address":
            mutant = mutate(genuine_address, random)
            print(number, mutant.hex(), file=sys.stderr)  # the last line names the killer
            passed += try_address(backend, mutant)
        else:
            mutant = mutate(genuine_key, random)
            print(number, mutant.hex(), file=sys.stderr)
            passed += try_key(backend, target, memory, mutant)
        target.progress()
    backend.close()
    target.close()
    print(f"passed {passed}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
