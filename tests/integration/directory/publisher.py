"""Opens a session, then does as told line by line. Run by the tests beside it.

Arguments: endpoint, namespace, name, incarnation, TTL. Prints ``open`` or the name of the error. Lines it takes:
``publish PATH``; it answers with ``done`` or the name of the error.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trunkline.directory import Directory
from trunkline.errors import TrunklineError
from trunkline.store import open_store


def main() -> None:
    endpoint, namespace, name, incarnation, ttl = sys.argv[1:]
    with open_store(endpoint) as store:
        try:
            session = Directory(store, namespace=namespace).open_publisher(
                name, incarnation=incarnation, ttl=float(ttl), timeout=0.5
            )
        except TrunklineError as error:
            print(type(error).__name__, flush=True)
            return
        print("open", flush=True)
        for line in sys.stdin:
            try:
                session.publish(Path(line.strip().removeprefix("publish ")).read_bytes())
                print("done", flush=True)
            except TrunklineError as error:
                print(type(error).__name__, flush=True)


main()
