"""The same calls on NIXL's API and on ours; prints as JSON what each gave.

Arguments: the package (``nixl_cu12`` or ``trunkline.nixl``), and the kind of run: ``alone`` or ``store`` (an etcd is
named in the environment). Output: ``{scenario: {step: outcome}}``; an outcome is a value's text, or ``!`` and the name
of an exception.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIZE = 1 << 20
PATIENCE = 10.0

package = sys.argv[1]
api: Any = importlib.import_module(f"{package}._api")
low: Any = importlib.import_module(f"{package}._bindings")
utils: Any = importlib.import_module(f"{package}._utils")
said: dict[str, dict[str, str]] = {}
steps: dict[str, str] = {}


def say(step: str, call: Callable[..., object], *arguments: object) -> Any:
    """Record what a call gives, and return it."""
    assert step not in steps, step
    try:
        value = call(*arguments)
    except Exception as error:
        steps[step] = f"!{type(error).__name__}"
        return None
    is_plain = isinstance(value, str | bytes | int | float | tuple | list | dict | set | type(None))
    steps[step] = repr(value) if is_plain else type(value).__name__
    return value


def until(call: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Call again until it gives something."""
    end = time.monotonic() + patience
    value = call()
    while not value and time.monotonic() < end:
        time.sleep(0.005)
        value = call()
    return value


class Memory:
    """Some registered memory."""

    def __init__(self, agent: Any, fill: int = 0) -> None:
        self.agent = agent
        self.bytes: NDArray[np.uint8] = np.full(SIZE, fill, np.uint8)
        self.base = self.bytes.ctypes.data
        self.descs = agent.register_memory([(self.base, SIZE, 0, "")], "DRAM")

    def blocks(self, count: int = 1, length: int = 64, step: int = 128, at: int = 0) -> Any:
        return self.agent.get_xfer_descs(
            [(self.base + at + number * step, length, 0) for number in range(count)], "DRAM"
        )

    def strided(self, *rows: tuple[int, int, int, int]) -> NDArray[np.uint64]:
        """Rows of (offset, length, stride, count)."""
        return np.array([(self.base + at, size, 0, stride, count) for at, size, stride, count in rows], np.uint64)


def pair(telemetry: bool = False) -> tuple[Any, Any, Memory, Memory]:
    config = api.nixl_agent_config(capture_telemetry=telemetry)
    a, b = api.nixl_agent("a", config), api.nixl_agent("b", config)
    mine, theirs = Memory(a), Memory(b, 7)
    a.add_remote_agent(b.get_agent_metadata())
    return a, b, mine, theirs


def run(agent: Any, handle: Any, message: bytes | str = b"") -> str:
    state = agent.transfer(handle, message)
    end = time.monotonic() + PATIENCE
    while state == "PROC" and time.monotonic() < end:
        state = agent.check_xfer_state(handle)
    return str(state)


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


def transfers() -> None:
    a, b, mine, theirs = pair()
    ready = a.initialize_xfer
    say("bad operation", lambda: ready("MOVE", mine.blocks(), theirs.blocks(), "b"))
    say("unknown agent", lambda: ready("WRITE", mine.blocks(), theirs.blocks(), "nobody"))
    say("no agent", lambda: ready("WRITE", mine.blocks(), theirs.blocks(), ""))
    stray = a.get_xfer_descs([(4096, 64, 0)], "DRAM")
    say("local not registered", lambda: ready("WRITE", stray, theirs.blocks(), "b"))
    say("remote not offered", lambda: ready("WRITE", mine.blocks(), stray, "b"))
    say("counts differ", lambda: ready("WRITE", mine.blocks(2), theirs.blocks(1), "b"))
    say("lengths differ", lambda: ready("WRITE", mine.blocks(1, 64), theirs.blocks(1, 32), "b"))
    say("no lists", lambda: ready("WRITE", None, None, "b"))
    say("regions", lambda: ready("WRITE", mine.descs, theirs.blocks(), "b"))
    say("other kind", lambda: ready("WRITE", a.get_xfer_descs([(mine.base, 64, 0)], "VRAM"), theirs.blocks(), "b"))
    say("unknown backend", lambda: ready("WRITE", mine.blocks(), theirs.blocks(), "b", b"", ["NOPE"]))
    say("known backend", lambda: ready("WRITE", mine.blocks(), theirs.blocks(), "b", b"", ["UCX"]))
    say("zero bytes", lambda: ready("WRITE", mine.blocks(1, 0), theirs.blocks(1, 0), "b"))
    say("overlapping", lambda: run(a, ready("READ", mine.blocks(2, 64, 32), theirs.blocks(2), "b")))
    handle = ready("READ", mine.blocks(4), theirs.blocks(4), "b")
    say("before post", lambda: a.check_xfer_state(handle))
    say("telemetry", lambda: a.get_xfer_telemetry(handle))
    say("backend", lambda: a.query_xfer_backend(handle))
    say("cost", lambda: a.estimate_xfer_cost(handle))
    say("run", lambda: (run(a, handle), a.check_xfer_state(handle), int(mine.bytes[0]), int(mine.bytes[128])))
    say("run again", lambda: run(a, handle))
    say("telemetry after", lambda: a.get_xfer_telemetry(handle))
    say("release", lambda: [a.release_xfer_handle(handle), a.release_xfer_handle(handle), handle.release()])
    say("after release", lambda: "released=True" in repr(handle))
    within = ready("WRITE", mine.blocks(2), mine.blocks(2, at=8192), "a", b"mine")
    say("within", lambda: (run(a, within), int(mine.bytes[8192]), until(a.get_new_notifs)))
    say("connect", lambda: (a.make_connection("b"), a.make_connection("b", ["UCX"])))
    say("connect to nobody", lambda: a.make_connection("nobody"))
    say("connect to itself", lambda: a.make_connection("a"))
    say(
        "names as bytes",
        lambda: (
            run(a, ready("READ", mine.blocks(), theirs.blocks(), b"b")),
            type(a.prep_xfer_dlist(b"b", theirs.blocks())).__name__,
            type(a.prep_xfer_dlist(b"", mine.blocks())).__name__,
            a.check_remote_metadata(b"b"),
            a.make_connection(b"b"),
            a.send_notif(b"b", b"x"),
            until(b.get_new_notifs),
            a.remove_remote_agent(b"nobody"),
        ),
    )
    last = ready("READ", mine.blocks(), theirs.blocks(), "b")
    a.remove_remote_agent("b")
    say("post after removal", lambda: a.transfer(last))
    say("check after removal", lambda: a.check_xfer_state(last))
    say("new after removal", lambda: ready("READ", mine.blocks(), theirs.blocks(), "b"))
    say("message after removal", lambda: a.send_notif("b", b"x"))
    say("gone", lambda: (b.name, a.check_remote_metadata("b")))


def telemetry() -> None:
    a, _, mine, theirs = pair(telemetry=True)
    handle = a.initialize_xfer("READ", mine.blocks(4, 128), theirs.blocks(4, 128), "b")
    say("before post", lambda: a.get_xfer_telemetry(handle))
    now = time.monotonic() * 1e6
    run(a, handle)
    found = a.get_xfer_telemetry(handle)
    say("types", lambda: [type(getattr(found, name)).__name__ for name in TELEMETRY])
    say("sizes", lambda: (found.totalBytes, found.descCount))
    say("times", lambda: (0 <= found.startTime - now < 5e6, found.xferDuration > 0))
    local, remote = a.prep_xfer_dlist("", mine.blocks(8, 64, 64)), a.prep_xfer_dlist("b", theirs.blocks(8, 64, 64))
    for skip in (False, True):
        merged = a.make_prepped_xfer("READ", local, [0, 1, 2, 4], remote, [0, 1, 2, 4], skip_desc_merge=skip)
        run(a, merged)
        say(f"skip_desc_merge={skip}", lambda merged: a.get_xfer_telemetry(merged).descCount, merged)
    with contextlib.suppress(AttributeError):
        found.descCount = 5
    say("read-only", lambda: found.descCount)
    for setting, asked in (("y", False), ("ENABLE", False), ("0", True), ("no", True)):
        os.environ["NIXL_TELEMETRY_ENABLE"] = setting
        agent, _, mine, theirs = pair(telemetry=asked)
        handle = agent.initialize_xfer("READ", mine.blocks(), theirs.blocks(), "b")
        run(agent, handle)
        say(f"{setting!r}, asked for: {asked}", lambda by, of: by.get_xfer_telemetry(of).descCount, agent, handle)
    del os.environ["NIXL_TELEMETRY_ENABLE"]


def prepared() -> None:
    a, _, mine, theirs = pair()
    theirs.bytes[:] = np.arange(SIZE) // 64
    local, remote, own = (
        a.prep_xfer_dlist(name, part)
        for name, part in (("", mine.blocks(8)), ("b", theirs.blocks(8)), ("a", mine.blocks(8, at=65536)))
    )
    say("local by name", lambda: a.prep_xfer_dlist("NIXL_INIT_AGENT", mine.blocks(8)))
    say("array", lambda: a.prep_xfer_dlist("b", np.array([[theirs.base, 64, 0]], np.uint64), "DRAM"))
    say("unknown agent", lambda: a.prep_xfer_dlist("nobody", theirs.blocks()))
    stray = a.get_xfer_descs([(4096, 64, 0)], "DRAM")
    say("local not registered", lambda: a.prep_xfer_dlist("", stray))
    say("remote not offered", lambda: a.prep_xfer_dlist("b", stray))
    say("no mem_type", lambda: a.prep_xfer_dlist("", [(mine.base, 1, 0)]))
    say("other kind", lambda: a.prep_xfer_dlist("", [(mine.base, 1, 0)], "VRAM"))
    say("empty", lambda: a.prep_xfer_dlist("", low.nixlXferDList(low.DRAM_SEG)))
    strided = theirs.strided((0, 64, 128, 4), (4096, 64, 64, 2))
    say("strided without mem_type", lambda: a.prep_xfer_dlist("b", strided))
    blocks = say("strided", lambda: a.prep_xfer_dlist("b", strided, "DRAM"))
    say("strided int64", lambda: a.prep_xfer_dlist("b", strided.astype(np.int64), "DRAM"))
    say("strided int32", lambda: a.prep_xfer_dlist("b", np.array([[1, 64, 0, 128, 4]], np.int32), "DRAM"))
    for name, row in {
        "beyond": (0, 64, SIZE, 2),
        "overlapping": (0, 64, 32, 8),
        "of none": (0, 64, 64, 0),
        "without stride": (0, 64, 0, 4),
    }.items():
        say(f"strided {name}", lambda row: a.prep_xfer_dlist("b", theirs.strided(row), "DRAM"), row)
    make = a.make_prepped_xfer
    two = np.array([0, 1])
    for name, chosen in {
        "list": [0, 1],
        "tuple": (0, 1),
        "int32": two.astype(np.int32),
        "int64": two,
        "uint64": two.astype(np.uint64),
        "uint8": two.astype(np.uint8),
        "range": range(2),
        "numpy scalars": [np.int64(0), np.int32(1)],
        "sliced": np.arange(4, dtype=np.int32)[::2],
        "none": [],
        "none, array": two[:0],
        "2-D": np.zeros((1, 2), np.int32),
    }.items():
        say(f"indices: {name}", lambda chosen: run(a, make("READ", local, chosen, remote, chosen)), chosen)
    for name, (near, far) in {
        "negative": ([-1], [0]),
        "negative array": (two[:1] - 1, two[:1]),
        "too large": ([8], [0]),
        "too large there": ([0], [8]),
        "counts differ": ([0, 1], [0]),
    }.items():
        say(f"indices: {name}", lambda near, far: make("READ", local, near, remote, far), near, far)
    say("same destination twice", lambda: run(a, make("READ", local, [0, 0], remote, [0, 1])))
    say("swapped", lambda: make("READ", remote, [0], local, [0]))
    say("two local", lambda: make("READ", local, [0], local, [0]))
    say("two remote", lambda: make("READ", remote, [0], remote, [0]))
    say("within", lambda: run(a, make("READ", local, [0, 1], own, [0, 1])))
    say("bad operation", lambda: make("X", local, [0], remote, [0]))
    say("backends", lambda: run(a, make("READ", local, [0], remote, [0], b"", ["UCX"])))
    say("unknown backend", lambda: make("READ", local, [0], remote, [0], b"", ["NOPE"]))
    say(
        "strided blocks",
        lambda: (run(a, make("READ", local, [0, 1, 2], blocks, [3, 4, 5])), mine.bytes[[0, 128, 256]].tolist()),
    )
    say("no such strided block", lambda: make("READ", local, [0], blocks, [6]))
    say("lengths differ", lambda: make("READ", a.prep_xfer_dlist("", mine.blocks(1, 32)), [0], remote, [0]))
    last = make("READ", local, [0], remote, [0])
    say("release", lambda: [a.release_dlist_handle(each) for each in (local, remote, local)])
    say("after release", lambda: ("released=True" in repr(local), run(a, last)))


def notifications() -> None:
    a, b, mine, theirs = pair()
    say("none", lambda: (b.get_new_notifs(), b.update_notifs(), b.get_new_notifs(["UCX"])))
    handle = a.initialize_xfer("WRITE", mine.blocks(4), theirs.blocks(4), "b", b"one")
    for name, message in {
        "own": b"",
        "other": b"two",
        "other stays": b"",
        "text": "é",
        "binary": bytes(range(256)),
    }.items():
        say(name, lambda message: (run(a, handle, message), until(b.get_new_notifs)), message)
    for name, text in {"bytes": b"hello", "text alone": "hello", "empty": b"", "large": b"x" * 20_000}.items():
        say(f"sent {name}", lambda text: (a.send_notif("b", text), until(b.get_new_notifs)), text)
    say("to nobody", lambda: a.send_notif("nobody", b"x"))
    say("to itself", lambda: (a.send_notif("a", b"self"), until(a.get_new_notifs)))
    say("by a backend", lambda: a.send_notif("b", b"", "UCX"))
    say("by no backend", lambda: a.send_notif("b", b"x", "NOPE"))
    say("a number", lambda: a.send_notif("b", 3))
    time.sleep(0.2)  # what the message by a backend gives differs
    b.get_new_notifs()
    for message in (b"m0", b"m1", b"m2", b"x_tag_y"):
        a.send_notif("b", message)
    until(lambda: len(b.update_notifs().get("a", [])) == 4)
    done = b.check_remote_xfer_done
    say(
        "done",
        lambda: [
            done("a", b"m1"),
            done("a", b"m1"),
            done("a", b"tag"),
            done("a", b"tag", tag_is_prefix=False),
            done("nobody", b"m"),
        ],
    )
    say("the rest", b.update_notifs)
    say("the same object", lambda: b.update_notifs() is b.notifs)
    say("taken out", lambda: (b.notifs["a"].clear(), b.update_notifs()))
    a.send_notif("b", b"late")
    say("late", lambda: until(lambda: b.update_notifs()["a"]))
    say("not new", b.get_new_notifs)
    say("tag as text", lambda: done("a", "late"))
    say("unknown backend", lambda: b.get_new_notifs(["NOPE"]))


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


KINDS = {
    "alone": [
        enumerations,
        descriptor_lists,
        lists_from_all_sorts,
        backends,
        memory,
        metadata,
        transfers,
        telemetry,
        prepared,
        notifications,
    ],
    "store": [store],
}

if __name__ == "__main__":
    output = os.dup(1)
    os.dup2(2, 1)  # NIXL logs to standard output
    for scenario in KINDS[sys.argv[2]]:
        steps = said.setdefault(scenario.__name__, {})
        scenario()
    os.write(output, json.dumps(said).encode())
    os.close(output)
    os._exit(0)  # NIXL's agents take their time to end, and nothing is left to be checked
