"""A worker in a process of its own, which does what standard input says.

Arguments: endpoint, group, size, rank (or -1), TTL, timeout. It joins, then says so by a line of JSON. Every line of
input is a JSON object: ``do`` names a method of Group, the rest are its arguments; each is answered by one line of
JSON, with the seconds it took. At the end of input it leaves.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from trunkline.coordination import Group
from trunkline.errors import TrunklineError

if TYPE_CHECKING:
    from collections.abc import Callable


def answer(work: Callable[[], Any]) -> None:
    began = time.monotonic()
    found: dict[str, Any]
    try:
        found = {"value": work()}
    except TrunklineError as error:
        context = {name: value for name, value in error.context.items() if isinstance(value, int | str | tuple | list)}
        found = {"error": type(error).__name__, "text": str(error), "context": context}
    except KeyboardInterrupt:
        print(json.dumps({"error": "KeyboardInterrupt"}), flush=True)
        raise
    print(json.dumps({**found, "elapsed": time.monotonic() - began}), flush=True)


def main() -> None:
    endpoint, name, size, rank, ttl, timeout = sys.argv[1:]
    joined: list[Group] = []

    def join() -> int:
        joined.append(
            Group(
                name,
                int(size),
                store=endpoint,
                rank=None if rank == "-1" else int(rank),
                ttl=float(ttl),
                timeout=float(timeout),
            )
        )
        return joined[0].rank

    answer(join)
    if not joined:
        return
    with joined[0] as group:
        for line in sys.stdin:
            arguments = json.loads(line)
            method = getattr(group, arguments.pop("do"))
            answer(lambda: method(**arguments))  # noqa: B023 - called at once


if __name__ == "__main__":
    main()
