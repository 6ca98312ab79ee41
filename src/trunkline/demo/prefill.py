"""Prefill: offers a KV cache and waits until it was read. Run by the demo, which ends it."""

from __future__ import annotations

import sys
import time

from trunkline.demo.cache import KvCache
from trunkline.demo.model import MODELS
from trunkline.demo.role import CACHE, DECODE, PREFILL, REQUEST, Task, task_of_arguments, tell, tell_failure
from trunkline.errors import TrunklineError


def prefill(task: Task) -> None:
    """Publish, wait for the notification, then for the end."""
    cache = KvCache(MODELS[task.model], task.blocks)
    cache.fill(task.life)
    with task.open_agent(PREFILL) as agent:
        agent.register(cache.layers(), name=CACHE)
        began = time.monotonic_ns()
        agent.publish()
        tell("published", began=began)
        note = agent.wait_notification()
        tell("notified", ok=note.ok and (note.sender, note.payload) == (DECODE, REQUEST))
        sys.stdin.read()  # until the demo closes it, or ends


if __name__ == "__main__":
    try:
        prefill(task_of_arguments())
    except TrunklineError as error:
        tell_failure(error)
        sys.exit(1)
