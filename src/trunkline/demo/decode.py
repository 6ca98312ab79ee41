"""Decode: finds prefill, reads from its cache, sees it die and come back. Run by the demo."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trunkline.clock import Deadline
from trunkline.demo.cache import KvCache
from trunkline.demo.model import MODELS
from trunkline.demo.role import CACHE, DECODE, PREFILL, REQUEST, Task, task_of_arguments, tell, tell_failure
from trunkline.directory.event import PeerJoined, PeerLeft
from trunkline.errors import DeadlineError, ShapeMismatchError, TrunklineError

if TYPE_CHECKING:
    from trunkline.agent.agent import Agent
    from trunkline.agent.peer import Peer
    from trunkline.agent.tensor import LocalTensor, TensorGroup
    from trunkline.directory.watch import DirectoryWatch

Event = TypeVar("Event", PeerJoined, PeerLeft)


def decode(task: Task) -> None:
    """Read in both of prefill's lives; tell of each step."""
    cache = KvCache(MODELS[task.model], task.read_blocks)
    with task.open_agent(DECODE) as agent, agent.watch(PREFILL) as watch:
        local = agent.register(cache.layers(), name=CACHE)
        tell("ready")
        peer = agent.fetch(PREFILL)
        _connect(peer)
        _wait_for(PeerJoined, watch, task)
        _read(agent, peer, local, cache, task, life=1)
        left = _wait_for(PeerLeft, watch, task)
        tell("gone", reason=left.reason)
        _wait_for(PeerJoined, watch, task)
        peer = agent.peer(PREFILL)  # the new incarnation: it was loaded before the watch told of it
        _connect(peer)
        _read(agent, peer, local, cache, task, life=2)


def _connect(peer: Peer) -> None:
    tell("loaded")
    began = time.monotonic_ns()
    peer.connect()
    tell("connected", began=began)


def _wait_for(kind: type[Event], watch: DirectoryWatch, task: Task) -> Event:
    """Return the next event of this kind; others are passed over."""
    deadline = Deadline(task.step_timeout)
    while True:
        event = watch.next(deadline.remaining())
        if isinstance(event, kind):
            return event
        if event is None:
            raise DeadlineError(f"the watch told of no {kind.__name__} for {task.step_timeout:g} s")


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
