"""Transfers between two agents, prepared or not, their figures, and notifications."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import numpy as np
from tests.integration.nixl.api_scenarios.bench import PATIENCE, SIZE, Memory, api, low, say, until
from tests.integration.nixl.api_scenarios.values import TELEMETRY


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
