"""A real NIXL agent that does as told line by line. Run by the tests beside it, which set its environment.

Argument: the agent's name. Lines it takes: ``publish``, ``withdraw``, ``metadata`` (answers with its own, in hex),
``fetch NAME`` (answers whether it was loaded in time), ``gone NAME`` (answers whether it was forgotten in time).
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from nixl_cu12._api import nixl_agent, nixl_agent_config

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 20.0
WATCH_DELAY = 0.5  # NIXL watches an agent's marker only some time after loading it, and misses a deletion before that


def until(condition: Callable[[], bool]) -> bool:
    """NIXL offers no way to wait, so ask."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # NIXL logs to standard output
    agent = nixl_agent(sys.argv[1], nixl_agent_config(backends=["UCX"]))
    memory = np.zeros(4096, np.uint8)
    agent.register_memory([(memory.ctypes.data, memory.nbytes, 0, "")], "DRAM")
    print("open", file=answers, flush=True)
    for line in sys.stdin:
        verb, _, name = line.strip().partition(" ")
        answer: object = "done"
        if verb == "publish":
            agent.send_local_metadata()
        elif verb == "withdraw":
            agent.invalidate_local_metadata()
        elif verb == "metadata":
            answer = agent.get_agent_metadata().hex()
        elif verb == "fetch":
            agent.fetch_remote_metadata(name)
            answer = until(lambda: bool(agent.check_remote_metadata(name)))  # noqa: B023  # called before the next line
            time.sleep(WATCH_DELAY)
        elif verb == "gone":
            answer = until(lambda: not agent.check_remote_metadata(name))  # noqa: B023  # as above
        print(answer, file=answers, flush=True)


main()
