"""A real NIXL agent in a process of its own, driven by lines of JSON: ``python nixl_peer.py SIZE``."""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import Any

import numpy as np


def main(size: int) -> None:
    from nixl_cu12._api import nixl_agent, nixl_agent_config

    agent = nixl_agent("real", nixl_agent_config(backends=["UCX"]))
    memory = np.zeros(size, np.uint8)
    registered = agent.register_memory([(memory.ctypes.data, size, 0, "")], "DRAM")

    def transfer(operation: str, address: int, length: int, note: str) -> str:
        local = agent.get_xfer_descs([(memory.ctypes.data, length, 0)], "DRAM")
        remote = agent.get_xfer_descs([(address, length, 0)], "DRAM")
        handle = agent.initialize_xfer(operation, local, remote, "ours", note.encode())
        state: str = agent.transfer(handle)
        end = time.monotonic() + 30
        while state == "PROC" and time.monotonic() < end:
            state = agent.check_xfer_state(handle)
        agent.release_xfer_handle(handle)
        return state

    def answer(value: Any) -> None:
        print(f"\n> {json.dumps(value)}", flush=True)

    answer([base64.b64encode(agent.get_agent_metadata()).decode(), memory.ctypes.data])
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        match command:
            case "load":
                loaded: Any = agent.add_remote_agent(base64.b64decode(arguments[0]))  # annotated str, but bytes
                answer(loaded.decode())
            case "fill":
                memory[:] = arguments[0]
                answer(None)
            case "count":
                answer(int(np.count_nonzero(memory == arguments[0])))
            case "transfer":
                answer(transfer(*arguments))
            case "notify":
                agent.send_notif("ours", arguments[0].encode())
                answer(None)
            case "notifications":
                taken = agent.get_new_notifs()
                answer([[name, message.decode()] for name, messages in taken.items() for message in messages])
    agent.deregister_memory(registered)


if __name__ == "__main__":
    main(int(sys.argv[1]))
