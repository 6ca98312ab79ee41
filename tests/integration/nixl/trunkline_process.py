"""An agent of ours that publishes and waits to be killed. Arguments: name, store, namespace, TTL in seconds."""

from __future__ import annotations

import sys

from trunkline import Agent


def main() -> None:
    name, store, namespace, ttl = sys.argv[1:]
    agent = Agent(name, store=store, namespace=namespace, ttl=float(ttl), devices="lo")
    agent.register(bytearray(4096), name="kv")
    agent.publish()
    print("published", flush=True)
    sys.stdin.read()


main()
