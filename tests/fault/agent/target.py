"""The other process of the fault tests: an agent that offers memory and does what its standard input says.

Run with the size of its memory in bytes; answers every line with one line of JSON.
"""

from __future__ import annotations

import json
import sys
import zlib

import numpy as np

from trunkline import Agent
from trunkline.errors import DeadlineError


def main() -> None:
    memory = np.full(int(sys.argv[1]), 1, np.uint8)
    with Agent(sys.argv[2], devices="lo", ttl=2.0) as agent:
        registered = agent.register(memory, name="memory")
        more: list[object] = []
        for line in sys.stdin:
            command, *arguments = line.split()
            answer: object = None
            if command == "card":
                answer = agent.card().hex()
            elif command == "publish":
                answer = agent.publish()
            elif command == "count":  # how many bytes hold each of these values
                answer = [int(np.count_nonzero(memory == int(value))) for value in arguments]
            elif (
                command == "strangers"
            ):  # how many bytes hold none of two values; right also while one becomes the other
                answer = int(np.count_nonzero((memory != int(arguments[0])) & (memory != int(arguments[1]))))
            elif command == "checksum":
                answer = zlib.crc32(memory.data)
            elif command == "note":
                try:
                    note = agent.wait_notification(timeout=float(arguments[0]))
                    answer = [note.sender, note.payload.decode(), note.ok]
                except DeadlineError:
                    answer = None
            elif command == "hail":  # makes the first connection from this side
                agent.notify(agent.load_peer(bytes.fromhex(arguments[0])), b"here")
            elif command == "read":  # from an agent that was hailed
                more.append(agent.read(agent.peer(arguments[0])["memory"], into=registered))
            elif command == "deregister":
                agent.deregister(registered)
            elif command == "register":
                more.append(agent.register(np.full(64, int(arguments[1]), np.uint8), name=arguments[0]))
            elif command == "drain":
                agent.drain()
            elif command == "sessions":
                answer = agent.health().sessions
            elif command == "close":
                break
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
