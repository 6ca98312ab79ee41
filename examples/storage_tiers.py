"""A paged KV cache in memory that spills blocks to a file and to an object store, and reads them back by block list.

Run it: python examples/storage_tiers.py [--url s3://bucket/prefix] [--folder /tmp] [--blocks 64] [--block-bytes 262144]
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path

import numpy as np

from trunkline import Agent, File, StoredObject, TransferHandle, typed


def main() -> None:
    options = parse()
    blocks, size = options.blocks, options.block_bytes
    rng = np.random.default_rng(7)
    memory = rng.integers(0, 256, (blocks, size), np.uint8)
    digests = [hashlib.sha256(block).digest() for block in memory]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, Agent("kv-cache", store="") as agent:
        if options.url:
            agent.create_backend("object", url=options.url)
        else:
            agent.create_backend("object", url=Path(folder, "objects").absolute().as_uri(), mkdir=True)
        cache = agent.register(memory, name="kv")
        spill = agent.register(typed(File(Path(folder, "spill.bin"), "w+", size=blocks * size), "U8", memory.shape))
        shelf = [agent.register(StoredObject(f"kv/block-{block}", size)) for block in range(blocks)]

        # Blocks that are not in use go: half of them to the file, wherever there is room, half to the object store.
        order = rng.permutation(blocks)
        on_disk, in_store = order[: blocks // 2], order[blocks // 2 :]
        places_in_file = rng.permutation(blocks)[: len(on_disk)]
        to_disk = agent.write(cache[on_disk], to=spill[places_in_file], tag="disk")
        to_store = agent.write([(cache[block], shelf[block]) for block in in_store], tag="store")
        for handle in (to_disk, to_store):
            report("spilled", handle.wait(60))
        memory[:] = 0  # the memory is used for something else meanwhile

        # They come back into other places, from both tiers as one transfer with one notification.
        new_place = rng.permutation(blocks)
        pairs = [(spill[place], cache[new_place[block]]) for block, place in zip(on_disk, places_in_file, strict=True)]
        pairs += [(shelf[block], cache[new_place[block]]) for block in in_store]
        report("read back", agent.read(pairs, notify=b"all blocks are back").wait(60))
        print(agent.wait_notification(timeout=5).payload.decode())
        wrong = [
            block for block in range(blocks) if hashlib.sha256(memory[new_place[block]]).digest() != digests[block]
        ]
        print(f"{blocks - len(wrong)} of {blocks} blocks are what they were")
        raise SystemExit(1 if wrong else 0)


def report(what: str, handle: TransferHandle) -> None:
    """Print what a transfer made."""
    figures = handle.telemetry
    print(f"{what}: {figures.blocks} blocks by {figures.backend}, {figures.bandwidth_gbps:.2f} GB/s")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="the object store; default: a folder")
    parser.add_argument("--folder", help="where the file (and the folder of objects) is put")
    parser.add_argument("--blocks", type=int, default=64)
    parser.add_argument("--block-bytes", type=int, default=1 << 18)
    return parser.parse_args()


if __name__ == "__main__":
    main()
