"""``python -m benchmarks [NAME …] [--rounds N] [--quick]``: JSON lines on stdout, a table for people on stderr."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import api, cma, coordination, crowd, files, large, metadata, phone_book, start, transfer
from benchmarks.figure import heading
from benchmarks.nixl import why_unavailable
from benchmarks.place import MEMORY, default_place
from benchmarks.run import Run
from trunkline.etcd.server import EtcdServer

TOPICS = {
    "phone-book": phone_book.measure,
    "crowd": crowd.measure,
    "transfer": transfer.measure,
    "files": files.measure,
    "cma": cma.measure,
    "metadata": metadata.measure,
    "large": large.measure,
    "start": start.measure,
    "coordination": coordination.measure,
    "api": api.measure,
}


def main() -> None:
    """Measure the topics asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Trunkline against NIXL, as ratios")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(TOPICS)}")
    parser.add_argument("--rounds", type=int, default=7, help="how often each side has its turn")
    parser.add_argument("--quick", action="store_true", help="a quarter of the repetitions in each round")
    parser.add_argument("--data", type=Path, help=f"where the run's etcd keeps its data; by default {MEMORY}, if there")
    options = parser.parse_args()
    if unknown := set(options.names) - set(TOPICS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(TOPICS)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    os.environ.setdefault("UCX_NET_DEVICES", "lo")
    os.environ.setdefault("NIXL_LOG_LEVEL", "FATAL")
    os.environ.setdefault("UCX_LOG_LEVEL", "FATAL")  # connections refused by processes that have ended are no news
    missing = why_unavailable()
    if missing is not None:
        print(f"NIXL is not measured (pip install --no-deps nixl-cu12): {missing}", file=sys.stderr)
    print(heading(), file=sys.stderr)
    place = options.data or default_place()
    print(f"etcd keeps its data in {'memory' if place == MEMORY else place}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=place) as directory, EtcdServer(Path(directory)).start() as server:
        run = Run(options.rounds, 0.25 if options.quick else 1.0, missing is None, server.endpoint)
        for name in options.names or TOPICS:
            for figure in run.figures(TOPICS[name]):
                print(figure.json(), flush=True)
                print(figure.row(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
