"""Decode: finds prefill, reads from its cache, sees it die, finds it again. Run by the demo."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from trunkline.demo.cache import KvCache
from trunkline.demo.model import MODELS
from trunkline.demo.role import CACHE, DECODE, PREFILL, REQUEST, Task, task_of_arguments, tell, tell_failure
from trunkline.errors import ShapeMismatchError, TrunklineError

if TYPE_CHECKING:
    from trunkline.agent.agent import Agent
    from trunkline.agent.peer import Peer
    from trunkline.agent.tensor import LocalTensor, TensorGroup


def decode(task: Task) -> None:
    """Read in both of prefill's lives; tell of each step."""
    cache = KvCache(MODELS[task.model], task.read_blocks)
    with task.open_agent(DECODE) as agent:
        local = agent.register(cache.layers(), name=CACHE)
        tell("ready")
        peer = _meet(agent)
        _read(agent, peer, local, cache, task, life=1)
        reason = peer.wait_gone()
        tell("gone", reason=reason)
        peer = _meet(agent)
        _read(agent, peer, local, cache, task, life=2)


def _meet(agent: Agent) -> Peer:
    peer = agent.fetch(PREFILL)
    tell("loaded")
    began = time.monotonic_ns()
    peer.connect()
    tell("connected", began=began)
    return peer


def _read(agent: Agent, peer: Peer, local: TensorGroup[LocalTensor], cache: KvCache, task: Task, *, life: int) -> None:
    remote = peer[CACHE]
    expected = {f"{CACHE}/{name}": ("BF16", cache.model.layer_shape(task.blocks)) for name in local}
    if {view.name: (view.dtype, view.shape) for _, view in remote.items()} != expected:
        raise ShapeMismatchError(f"{peer.name} offers {remote!r}, not the cache of {task.model}", agent=peer.name)
    tell("checked")
    theirs = np.random.default_rng(life).permutation(task.blocks)[: task.read_blocks]
    ours = np.arange(task.read_blocks)
    transfer = agent.read(remote[theirs], into=local[ours], notify=REQUEST).wait()
    telemetry = transfer.telemetry
    tell("read", bytes=telemetry.bytes, total_us=telemetry.total_us, transports=telemetry.transports)
    cache.verify(theirs, of=task.blocks, life=life)
    tell("verified")


if __name__ == "__main__":
    try:
        decode(task_of_arguments())
    except TrunklineError as error:
        tell_failure(error)
        sys.exit(1)
