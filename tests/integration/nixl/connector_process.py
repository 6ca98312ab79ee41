"""A connector's worker in a process of its own, driven by JSON lines: ``[method, arguments]`` in, the answer out.

Arguments: the class in connectors.py, and the agent's name. Its first line is ``"open"``.
"""

from __future__ import annotations

import json
import sys

from tests.integration.nixl import connectors


def main() -> None:
    kind, name = sys.argv[1:]
    worker = getattr(connectors, kind)(name)
    print(json.dumps("open"), flush=True)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        print(json.dumps(getattr(worker, method)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
