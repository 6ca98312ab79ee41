"""``python -m benchmarks.objects [--quick]``: object stores by size and concurrency, JSON lines on stdout.

The S3 server is moto's, one process in Python, on loopback: its figures show neither
what a store can do nor what concurrency gains where answers take their time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline import Agent, StoredObject
from trunkline.testing.s3 import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.agent.pair import PreparedPair

KIB, MIB = 1 << 10, 1 << 20
SHAPES = ((1, 4 * KIB), (1, 8 * MIB), (1, 64 * MIB), (16, 4 * MIB), (256, 64 * KIB))
"""How many objects of which size one transfer moves."""
CONCURRENCY = (1, 4, 16)


def main() -> None:
    """Measure all stores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objects", description="object stores")
    parser.add_argument("--rounds", type=int, default=7, help="how often each transfer is made")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as directory, S3Server(Path(directory) / "s3").start() as server:
        server.client().create_bucket(Bucket="bench")
        stores: dict[str, dict[str, Any]] = {
            "memory": {"url": "memory://"},
            "local": {"url": f"file://{directory}/objects", "mkdir": True},
            "s3": {"url": "s3://bench", **server.options()},
        }
        for name, settings in stores.items():
            for concurrency in CONCURRENCY:
                for line in _measure(name, settings, concurrency, rounds):
                    print(json.dumps(line), flush=True)
                    print(
                        f"{name:7} x{concurrency:<3} {line['objects']:4} objects of {line['bytes']:>10,}: "
                        f"write {line['write_ms']:9.2f} ms, read {line['read_ms']:9.2f} ms "
                        f"({line['read_mb_per_s']:8.1f} MB/s), post {line['post_us']:6.0f} us",
                        file=sys.stderr,
                    )


def _measure(store: str, settings: dict[str, Any], concurrency: int, rounds: int) -> Iterator[dict[str, Any]]:
    for count, size in SHAPES:
        with Agent("bench", store="", devices="lo") as agent:
            agent.create_backend("object", concurrency=concurrency, **settings)
            data = np.random.default_rng(1).integers(0, 256, (count, size), np.uint8)
            memory = agent.register({str(number): data[number] for number in range(count)}, name="memory")
            objects = {str(number): StoredObject(f"{size}/{number}", size) for number in range(count)}
            pair = agent.prepare(memory, agent.register(objects, name="objects"))
            writes, _ = _times(pair, "write", rounds)
            reads, posts = _times(pair, "read", rounds)
            seconds = statistics.median(reads)
            yield {
                "store": store,
                "concurrency": concurrency,
                "objects": count,
                "bytes": size,
                "rounds": rounds,
                "write_ms": statistics.median(writes) * 1e3,
                "read_ms": seconds * 1e3,
                "read_ms_spread": [min(reads) * 1e3, max(reads) * 1e3],
                "read_mb_per_s": count * size / seconds / 1e6,
                "post_us": statistics.median(posts) * 1e6,
            }


def _times(pair: PreparedPair, operation: str, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of each transfer, and of each call that started one."""
    times, posts = [], []
    for round_ in range(rounds + 1):
        began = time.perf_counter()
        handle = getattr(pair, operation)()
        posted = time.perf_counter()
        handle.wait(120)
        if round_:  # the first warms up
            times.append(time.perf_counter() - began)
            posts.append(posted - began)
    return times, posts


if __name__ == "__main__":
    main()
