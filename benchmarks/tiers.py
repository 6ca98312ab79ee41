"""``python -m benchmarks.tiers [--plot FILE.svg]``: bandwidth by block size for every way to move blocks here.

JSON lines on stdout. 16 MiB in blocks of one size go between memory and: another agent of this process (UCX with its
own cross-memory attach, CMA), a file, objects in a folder, objects in memory. No NIXL: other topics compare with it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline import Agent, File, StoredObject, typed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from trunkline import TransferHandle

    Move = Callable[[], TransferHandle]

TOTAL = 16 << 20
SIZES = tuple(1 << power for power in range(12, 25, 2))
OBJECT_SIZES = SIZES[2:]  # smaller objects take seconds in all, and say nothing new


def main() -> None:
    """Measure all ways, and plot them if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiers", description="bandwidth by block size")
    parser.add_argument("--rounds", type=int, default=7, help="how often each transfer is made")
    parser.add_argument("--plot", type=Path, help="where to put a plot (needs matplotlib)")
    options = parser.parse_args()
    os.environ.setdefault("UCX_NET_DEVICES", "lo")
    lines = list(measure(options.rounds))
    for line in lines:
        print(json.dumps(line), flush=True)
    if options.plot is not None:
        plot(lines, options.plot)


def measure(rounds: int) -> Iterator[dict[str, Any]]:
    """Yield one line for each way, direction and block size."""
    for size in SIZES:
        memory = np.random.default_rng(1).integers(0, 256, (TOTAL // size, size), np.uint8)
        yield from _agents_and_files(memory, rounds)
        if size in OBJECT_SIZES:
            for way in ("objects in a folder", "objects in memory"):
                yield from _objects(memory, way, rounds)


def _agents_and_files(memory: NDArray[np.uint8], rounds: int) -> Iterator[dict[str, Any]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Agent("bench", store="") as agent,
        Agent("peer", store="") as peer,
    ):
        local = agent.register(memory)[np.random.default_rng(2).permutation(len(memory))]
        peer.register(np.zeros_like(memory), name="kv")
        far = agent.load_peer(peer.card())["kv"]
        spill = agent.register(typed(File(Path(folder, "spill"), "w+", size=TOTAL), "U8", memory.shape))
        for name, side in (("ucx", far), ("cma", far), ("posix", spill)):
            write = partial(agent.write, local, to=side, backend=name)
            read = partial(agent.read, side, into=local, backend=name)
            yield from _lines(name, write, read, memory.shape[1], rounds)


def _objects(memory: NDArray[np.uint8], way: str, rounds: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, Agent("bench", store="") as agent:
        if way == "objects in memory":
            agent.create_backend("object", url="memory://")
        else:
            agent.create_backend("object", url=f"file://{folder}/objects", mkdir=True)
        local = agent.register(memory)
        size = memory.shape[1]
        shelf = [agent.register(StoredObject(f"block-{row}", size)) for row in range(len(memory))]
        write = partial(agent.write, [(local[row], each) for row, each in enumerate(shelf)])
        read = partial(agent.read, [(each, local[row]) for row, each in enumerate(shelf)])
        yield from _lines(way, write, read, size, rounds)


def _lines(way: str, write: Move, read: Move, size: int, rounds: int) -> Iterator[dict[str, Any]]:
    for direction, move in (("write", write), ("read", read)):
        rates = [move().wait(120).telemetry.bandwidth_gbps for _ in range(rounds + 1)][1:]  # the first warms up
        yield {
            "way": way,
            "direction": direction,
            "block_bytes": size,
            "gb_per_s": float(f"{statistics.median(rates):.4g}"),
            "spread": [float(f"{rate:.4g}") for rate in (min(rates), max(rates))],
            "rounds": rounds,
        }


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw bandwidth over block size, one line for each way; reads and writes side by side."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "trunkline"
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
    for panel, direction in zip(panels, ("write", "read"), strict=True):
        for way in dict.fromkeys(line["way"] for line in lines):
            points = [line for line in lines if line["way"] == way and line["direction"] == direction]
            x, y = [point["block_bytes"] for point in points], [point["gb_per_s"] for point in points]
            panel.plot(x, y, marker="o", label=way)
            low, high = zip(*(point["spread"] for point in points), strict=True)
            panel.fill_between(x, low, high, alpha=0.15)
        panel.set(xscale="log", yscale="log", title=f"{direction} 16 MiB", xlabel="block size, bytes")
        panel.grid(visible=True, which="both", alpha=0.2)
    panels[0].set_ylabel("GB/s (median, spread of rounds)")
    panels[1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
