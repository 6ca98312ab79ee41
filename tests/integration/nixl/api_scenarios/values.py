"""Enumerations, configurations and descriptor lists: what needs no second agent."""

from __future__ import annotations

import numpy as np
from tests.integration.nixl.api_scenarios.bench import api, low, say, utils

CONFIG = [
    "useProgThread",
    "useListenThread",
    "listenPort",
    "syncMode",
    "pthrDelay",
    "lthrDelay",
    "captureTelemetry",
    "etcdWatchTimeout",
]
TELEMETRY = ["startTime", "postDuration", "xferDuration", "totalBytes", "descCount"]


def enumerations() -> None:
    for name in ("DRAM_SEG", "NIXL_SUCCESS", "NIXL_ERR_BACKEND", "NIXL_WRITE", "NIXL_THREAD_SYNC_RW"):
        one = getattr(low, name)
        kind = type(one)
        say(name, lambda one: (repr(one), str(one), one.name, one.value, int(one), hash(one)), one)
        say(f"{name} compared", lambda one, kind: (one == int(one), one == None, kind(int(one)) == one), one, kind)  # noqa: E711
    say("other enumerations", lambda: (low.NIXL_SUCCESS == low.DRAM_SEG, low.NIXL_IN_PROG != 0))
    say("order", lambda: low.NIXL_ERR_BACKEND < 0)
    say("members", lambda: [list(kind.__members__) for kind in (low.nixl_mem_t, low.nixl_status_t)])
    say("no member", lambda: repr(low.nixl_mem_t(9)))
    say("no integer", lambda: low.nixl_mem_t("x"))
    say("sync modes", lambda: list(api.nixl_thread_sync_t.__members__))
    say("port", lambda: (api.DEFAULT_COMM_PORT, low.DEFAULT_COMM_PORT, low.NIXL_INIT_AGENT))
    say("config", lambda: vars(api.nixl_agent_config()))
    say("config with a bad mode", lambda: api.nixl_agent_config(sync_mode=3))
    for name in CONFIG:
        say(name, lambda name: str(getattr(low.nixlAgentConfig(), name)), name)
    say("telemetry", lambda: {name: getattr(low.nixlXferTelemetry(), name) for name in TELEMETRY})
    address = utils.malloc_passthru(64)
    other = utils.malloc_passthru(64)
    say(
        "helpers",
        lambda: [
            call(*given)
            for call, *given in (
                (utils.ba_buf, address, 64),
                (utils.ba_buf, other, 64),
                (utils.verify_transfer, address, other, 64),
                (utils.free_passthru, address),
                (utils.free_passthru, other),
            )
        ],
    )


def descriptor_lists() -> None:
    dram, plain, full, remote = low.DRAM_SEG, low.nixlXferDList, low.nixlRegDList, low.nixlRemoteDList
    say("empty", lambda: (plain(dram).descCount(), plain(dram).isEmpty(), str(plain(type=dram).getType())))
    say("sized", lambda: (plain(dram, 5).descCount(), plain(dram, init_size=3).descCount()))
    for name, rows in {
        "pairs": [(1, 2)],
        "fours": [(1, 2, 3, "")],
        "lists": [[1, 2, 3]],
        "negative": [(-1, 2, 3)],
        "large": [(2**64 - 1, 2, 3)],
        "too large": [(2**64, 2, 3)],
        "float": [(1.5, 2, 3)],
        "zeros": [(0, 0, 0)],
        "numpy": [(np.uint64(4), np.int32(5), np.int64(6))],
    }.items():
        say(name, lambda rows: plain(dram, rows)[0], rows)
    for dtype in ("uint64", "int64", "int32", "float64", "object"):
        say(dtype, lambda dtype: plain(dram, np.array([[1, 2, 3], [4, 5, 6]], dtype))[1], dtype)
    say("negative array", lambda: plain(dram, np.array([[-1, 2, 3]]))[0])
    grid = np.arange(24, dtype=np.uint64).reshape(4, 6)
    say("sliced array", lambda: plain(dram, grid[::2, :3])[1])
    say("N×4 array", lambda: plain(dram, np.zeros((2, 4), np.uint64)))
    say("1-D array", lambda: plain(dram, np.zeros(3, np.uint64)))
    say("empty array", lambda: plain(dram, np.zeros((0, 3), np.uint64)).descCount())
    say("no kind", lambda: plain(0))
    say("triples to register", lambda: full(dram, [(1, 2, 3)]))
    say("fours to register", lambda: (full(dram, [(1, 2, 3, "meta")])[0], full(dram, [(1, 2, 3, b"\xff")])[0]))
    say("array to register", lambda: full(dram, np.array([[1, 2, 3]], np.uint64))[0])
    both = plain(dram, [(1, 2, 3), (4, 5, 6)])
    say("negative index", lambda: both[-1])
    say("slice", lambda: both[0:1])
    say("numpy index", lambda: both[np.int64(1)])
    say("length", lambda: len(both))
    say("truth", lambda: bool(plain(dram)))
    say("equal", lambda: both == plain(dram, [(1, 2, 3), (4, 5, 6)]))
    say(
        "not equal",
        lambda: [both == other for other in (plain(low.VRAM_SEG, [(1, 2, 3), (4, 5, 6)]), plain(dram), 3, None)],
    )
    say("hash", lambda: hash(both))
    say("set", lambda: (both.__setitem__(0, (7, 8, 9)), both[0]))
    say("set a list", lambda: both.__setitem__(0, [7, 8, 9]))
    say("append", lambda: (both.append((1, 1, 1)), both.addDesc((2, 2, 2)), both.descCount(), both[3]))
    say("append a pair", lambda: both.append((1, 1)))
    say("append too large", lambda: both.append((2**65, 1, 1)))
    say("index", lambda: both.index((2, 2, 2)))
    say("index of what is missing", lambda: both.index((99, 2, 2)))
    say("remove", lambda: (both.remDesc(0), both.descCount(), both[0]))
    say("remove too much", lambda: both.remDesc(17))
    say("clear", lambda: (both.clear(), both.descCount(), both.isEmpty()))
    regions = full(dram, [(1, 2, 3, "a"), (4, 5, 6, "b")])
    say("trim", lambda: (type(regions.trim()).__name__, regions.trim()[1]))
    say("index of a region", lambda: (regions.index((1, 2, 3, "a")), regions.index((1, 2, 3, "other"))))
    say("regions' meta counts", lambda: regions == full(dram, [(1, 2, 3, "z"), (4, 5, 6, "b")]))
    say("set a region", lambda: (regions.__setitem__(0, (7, 7, 7, "q")), regions[0]))
    say("states", lambda: (plain(dram, [(1, 2, 3)]).__getstate__(), regions.__getstate__()))
    say(
        "remote",
        lambda: (
            remote(dram, [(1, 2, 3, "agent")])[0],
            remote(dram, [(1, 2, 3, "x")]) == remote(dram, [(1, 2, 3, "y")]),
        ),
    )
    say("remote triples", lambda: remote(dram, [(1, 2, 3)]))


def lists_from_all_sorts() -> None:
    agent = api.nixl_agent("a")
    rows = np.array([[1, 2, 3]], np.uint64)
    for name, given in {
        "tuples": ([(1, 2, 3)], "DRAM"),
        "no mem_type": ([(1, 2, 3)],),
        "pairs": ([(1, 2)], "DRAM"),
        "array": (rows, "cpu"),
        "array without": (rows,),
        "N×4": (np.zeros((2, 4), np.uint64), "DRAM"),
        "text": ("abc",),
        "nothing": ([], "DRAM"),
        "number": (3, "DRAM"),
        "bad mem_type": ([(1, 2, 3)], "XX"),
        "lists": ([[1, 2, 3]], "DRAM"),
        "region list": (low.nixlRegDList(low.DRAM_SEG),),
        "same": (low.nixlXferDList(low.DRAM_SEG),),
        "VRAM": (rows, "cuda"),
    }.items():
        say(name, lambda given: agent.get_xfer_descs(*given), given)
    say("regions", lambda: (agent.get_reg_descs([(1, 2, 3, "")], "DRAM")[0], agent.get_reg_descs(rows, "DRAM")[0]))
    say("regions of triples", lambda: agent.get_reg_descs([(1, 2, 3)], "DRAM"))
    say("regions of a list", lambda: agent.get_reg_descs(low.nixlXferDList(low.DRAM_SEG)))
    say("remote", lambda: agent.get_remote_descs([(1, 2, 3, "x")], "DRAM")[0])
    say("remote triples", lambda: agent.get_remote_descs([(1, 2, 3)], "DRAM"))
    say(
        "serialised",
        lambda: agent.deserialize_descs(agent.get_serialized_descs(agent.get_reg_descs([(1, 2, 3, "m")], "DRAM")))[0],
    )
    say("deserialised garbage", lambda: agent.deserialize_descs(b"zz"))
