"""Agents: their backends, their memory, and what they tell each other of it, by hand or through a store."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from tests.integration.nixl.api_scenarios.bench import SIZE, Memory, api, low, say, until


def backends() -> None:
    agent = api.nixl_agent("a")
    say("open", lambda: (list(agent.backends), type(agent.backends["UCX"]).__name__))
    say("UCX's parameters", lambda: sorted(agent.get_plugin_params("UCX").items()))
    say(
        "UCX's memory",
        lambda: ("DRAM_SEG" in agent.get_plugin_mem_types("UCX"), "DRAM_SEG" in agent.get_backend_mem_types("UCX")),
    )
    say(
        "unknown",
        lambda: [
            ask("NOPE")
            for ask in (
                agent.get_plugin_mem_types,
                agent.get_plugin_params,
                agent.get_backend_mem_types,
                agent.get_backend_params,
            )
        ],
    )
    say("create unknown", lambda: agent.create_backend("NOPE"))
    say("create twice", lambda: agent.create_backend("UCX"))
    bare = api.nixl_agent("bare", api.nixl_agent_config(backends=[]))
    say("bare", lambda: (bare.backends, bare.backend_mems))
    say("bare metadata", bare.get_agent_metadata)
    say("bare register", lambda: bare.register_memory([(1, 2, 3, "")], "DRAM"))
    say("bare add", lambda: bare.add_remote_agent(agent.get_agent_metadata()))
    say("bare notifications", bare.get_new_notifs)
    say("bare create, not a string", lambda: bare.create_backend("UCX", {"num_threads": 4}))
    say("bare create", lambda: bare.create_backend("UCX", {"num_threads": "4", "bogus": "1"}))
    say("bare parameters", lambda: sorted(bare.get_backend_params("UCX").items()))
    say("unknown in config", lambda: api.nixl_agent("odd", api.nixl_agent_config(backends=["WAT"])).backends)
    say("no name", lambda: api.nixl_agent(""))
    say("name of a kind", lambda: api.nixl_agent(3))
    say("name with a slash", lambda: api.nixl_agent("x/y"))


def memory() -> None:
    agent = api.nixl_agent("a")
    space = np.zeros(4 * SIZE, np.uint8)
    base = space.ctypes.data

    def regions(*numbers: int, length: int = SIZE) -> Any:
        return agent.get_reg_descs([(base + number * SIZE, length, 0, "") for number in numbers], "DRAM")

    say("register", lambda: agent.register_memory([(base, SIZE, 0, "")], "DRAM"))
    say("register again", lambda: agent.register_memory(regions(0)))
    say("deregister", lambda: agent.deregister_memory(regions(0)))
    say("deregister again", lambda: agent.deregister_memory(regions(0)))
    say("deregister too often", lambda: agent.deregister_memory(regions(0)))
    say("register two", lambda: agent.register_memory(regions(1, 2), backends=["UCX"]))
    say("register a third", lambda: agent.register_memory(np.array([[base + 3 * SIZE, SIZE, 0]], np.uint64), "DRAM"))
    say("deregister a part", lambda: agent.deregister_memory(regions(1, length=SIZE // 2)))
    say("deregister one and a missing", lambda: agent.deregister_memory(regions(1, 0)))
    say("deregister across calls", lambda: agent.deregister_memory(regions(2, 3), backends=["UCX"]))
    say("deregister the last", lambda: agent.deregister_memory(regions(1)))
    say("unknown backend", lambda: agent.register_memory(regions(0), backends=["NOPE"]))
    say("no mem_type", lambda: agent.register_memory([(base, SIZE, 0, "")]))
    say("triples", lambda: agent.register_memory([(base, SIZE, 0)], "DRAM"))
    say("nothing", lambda: agent.register_memory([], "DRAM"))
    say("bad mem_type", lambda: agent.register_memory([(base, SIZE, 0, "")], "XX"))
    say("files", lambda: agent.register_memory([(0, SIZE, 3, "")], "FILE"))
    say("address 0", lambda: agent.register_memory([(0, SIZE, 0, "")], "DRAM"))
    say("empty list", lambda: agent.register_memory(low.nixlRegDList(low.DRAM_SEG)))
    say("zero bytes", lambda: agent.register_memory([(base, 0, 0, "")], "DRAM"))
    say("query", lambda: agent.query_memory([(base, SIZE, 0, "")], "UCX", "DRAM"))
    say("query unknown", lambda: agent.query_memory([(base, SIZE, 0, "")], "NOPE", "DRAM"))


def metadata() -> None:
    a, b = api.nixl_agent("a"), api.nixl_agent("b")
    space = np.zeros(4 * SIZE, np.uint8)
    base = space.ctypes.data

    def regions(*numbers: int) -> Any:
        return b.get_reg_descs([(base + number * SIZE, SIZE, 0, "") for number in numbers], "DRAM")

    def offered(*numbers: int, at: int = 0, length: int = SIZE, kind: str = "DRAM", device: int = 0) -> bool:
        rows = [(base + number * SIZE + at, length, device) for number in numbers]
        return bool(a.check_remote_metadata("b", a.get_xfer_descs(rows, kind)))

    b.register_memory(regions(0, 1))
    say("unknown", lambda: (a.check_remote_metadata("b"), a.check_remote_metadata("a")))
    say("part first", lambda: a.add_remote_agent(b.get_partial_agent_metadata(regions(0))))
    nothing = low.nixlRegDList(low.DRAM_SEG)
    say("connection", lambda: a.add_remote_agent(b.get_partial_agent_metadata(nothing, True)))
    say("after connection", lambda: (a.check_remote_metadata("b"), offered(0)))
    say("part", lambda: (a.add_remote_agent(b.get_partial_agent_metadata(regions(0))), offered(0), offered(0, 1)))
    say("other part", lambda: (a.add_remote_agent(b.get_partial_agent_metadata(regions(1), True)), offered(0, 1)))
    say("inside", lambda: offered(0, at=5, length=SIZE - 5))
    say("beyond", lambda: (offered(1, length=SIZE + 1), offered(2), offered(0, kind="VRAM"), offered(0, device=1)))
    third = b.register_memory(regions(2))
    say("added", lambda: (a.add_remote_agent(b.get_agent_metadata()), offered(0, 1, 2)))
    b.deregister_memory(third)
    say("taken back stays", lambda: (a.add_remote_agent(b.get_agent_metadata()), offered(0, 1, 2)))
    say("part that is not registered", lambda: b.get_partial_agent_metadata(regions(0, 3)))
    say("unknown backend", lambda: b.get_partial_agent_metadata(regions(0), True, ["NOPE"]))
    say("own", lambda: a.add_remote_agent(a.get_agent_metadata()))
    say("garbage", lambda: a.add_remote_agent(b"garbage"))
    say("nothing", lambda: a.add_remote_agent(b""))
    say("text", lambda: a.add_remote_agent("abc"))
    say("none", lambda: a.add_remote_agent(None))
    say("bytearray", lambda: a.add_remote_agent(bytearray(b.get_agent_metadata())))
    say("remove unknown", lambda: a.remove_remote_agent("nobody"))
    say("remove", lambda: (a.remove_remote_agent("b"), a.check_remote_metadata("b"), a.remove_remote_agent("b")))
    say("once more", lambda: (a.add_remote_agent(b.get_agent_metadata()), offered(0, 1)))
    other = api.nixl_agent("b")
    say("another of that name", lambda: a.add_remote_agent(other.get_agent_metadata()))
    say("another, removed before", lambda: (a.remove_remote_agent("b"), a.add_remote_agent(other.get_agent_metadata())))
    say("truncated", lambda: a.add_remote_agent(b.get_agent_metadata()[:-20]))
    for name, call in {
        "send": a.send_local_metadata,
        "fetch": lambda: a.fetch_remote_metadata("b"),
        "invalidate": a.invalidate_local_metadata,
        "send a part": lambda: a.send_partial_agent_metadata(nothing, True, label="x"),
    }.items():
        say(f"{name} without a store", call)


def store() -> None:
    """With an etcd."""
    a, b, c = (api.nixl_agent(name) for name in ("a", "b", "c"))
    theirs, parts = Memory(b), [Memory(c), Memory(c)]

    def knows(name: str, memory: Memory | None = None) -> bool:
        return bool(a.check_remote_metadata(name, *([] if memory is None else [memory.blocks()])))

    say("publish", b.send_local_metadata)
    say("fetch itself", lambda: a.fetch_remote_metadata("a"))
    time.sleep(0.3)  # NIXL publishes later than it returns
    say("fetch", lambda: (a.fetch_remote_metadata("b"), until(lambda: knows("b", theirs))))
    say("fetch again", lambda: (a.fetch_remote_metadata("b"), knows("b")))
    time.sleep(0.3)  # its second fetch may still be under way, and would undo what follows
    say("withdraw", lambda: (b.invalidate_local_metadata(), until(lambda: not knows("b"))))
    say("withdraw again", b.invalidate_local_metadata)
    nothing = low.nixlRegDList(low.DRAM_SEG)
    say("a part without a label", lambda: c.send_partial_agent_metadata(parts[0].descs, True))
    say("a part that is not registered", lambda: c.send_partial_agent_metadata(theirs.descs, False, label="p9"))
    say("a connection", lambda: c.send_partial_agent_metadata(nothing, True, label="conn"))
    say(
        "parts",
        lambda: [c.send_partial_agent_metadata(part.descs, label=f"p{number}") for number, part in enumerate(parts)],
    )
    time.sleep(0.3)
    say(
        "fetch the connection",
        lambda: (a.fetch_remote_metadata("c", label="conn"), until(lambda: knows("c")), knows("c", parts[0])),
    )
    say(
        "fetch a part",
        lambda: (a.fetch_remote_metadata("c", label="p1"), until(lambda: knows("c", parts[1])), knows("c", parts[0])),
    )
    say(
        "fetch another",
        lambda: (a.fetch_remote_metadata("c", label="p0"), until(lambda: knows("c", parts[0])), knows("c", parts[1])),
    )
    say("full under the part's label", lambda: c.send_partial_agent_metadata(parts[0].descs, True, label="metadata"))
