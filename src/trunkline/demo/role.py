"""What prefill and decode have in common: their task, and telling the demo how they fare.

Each role is a process of its own. It gets its task as JSON in its only argument and writes one line of JSON per event
to standard output. Times are ``time.monotonic_ns``, one clock for all processes of a Linux machine.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from trunkline.agent.agent import Agent

if TYPE_CHECKING:
    from trunkline.errors import TrunklineError

PREFILL = "prefill-0"
DECODE = "decode-0"
CACHE = "kv"
REQUEST = b"req-7"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a role is to do.

    Attributes:
        store: Where the agents find each other.
        namespace: The demo's own corner of it.
        model: Name of the model.
        blocks: How many blocks prefill's cache has; decode's has half of that.
        devices: Network interfaces that UCX may use.
        step_timeout: Seconds for each step.
        credentials: A credentials file for the store, empty for none; None leaves that to the environment.
        ttl: Seconds that the role's keys outlive it; None for the agent's default.
        life: Prefill's first or second life.
    """

    store: str
    namespace: str
    model: str
    blocks: int
    devices: str
    step_timeout: float
    credentials: str | None = None
    ttl: float | None = None
    life: int = 1

    @property
    def read_blocks(self) -> int:
        """How many blocks decode reads."""
        return self.blocks // 2

    def open_agent(self, name: str) -> Agent:
        """Open the role's agent."""
        return Agent(
            name,
            store=self.store,
            store_options={} if self.credentials is None else {"credentials": self.credentials},
            namespace=self.namespace,
            devices=self.devices,
            ttl=self.ttl,
            timeout=self.step_timeout,
        )


_TASK = msgspec.json.Decoder(Task)


def task_of_arguments() -> Task:
    """Return this process's task."""
    return _TASK.decode(sys.argv[1])


def tell(event: str, **facts: Any) -> None:
    """Tell the demo of an event that happened now."""
    sys.stdout.write(json.dumps({"event": event, "at": time.monotonic_ns(), **facts}) + "\n")
    sys.stdout.flush()


def tell_failure(error: TrunklineError) -> None:
    """Tell the demo why the role can't go on."""
    tell("failed", reason=f"{type(error).__name__}: {error}")
