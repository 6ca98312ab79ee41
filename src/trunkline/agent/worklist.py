"""Work on several agents at the same time, and on each of them in order."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from trunkline.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.clock import Deadline

log = logging.getLogger(__name__)

THREADS = 8
"""How many agents are worked on at once. Steps mostly wait, for the store or for a peer that does not answer."""

Step: TypeAlias = "Callable[[], None]"


class Worklist:
    """Runs steps on threads of its own, which live only while there is something to do. Any thread may call any method.

    Args:
        name: Whose it is; names the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()  # guards all below; never held while a step runs
        self._steps: dict[str, deque[Step]] = {}  # of each agent, the one under way included
        self._ready: deque[str] = deque()  # agents that have steps, of which none is under way
        self._threads: set[threading.Thread] = set()
        self._is_closed = False

    def put(self, agent: str, step: Step) -> None:
        """Have something done for an agent, after what is to be done for it already; nothing once closed."""
        with self._lock:
            if self._is_closed:
                return
            steps = self._steps.get(agent)
            if steps is not None:
                steps.append(step)
                return
            self._steps[agent] = deque((step,))
            self._ready.append(agent)
            if len(self._threads) < THREADS:
                thread = threading.Thread(target=self._run, name=f"trunkline-follow-{self._name}", daemon=True)
                self._threads.add(thread)
                thread.start()

    def is_busy(self, agent: str) -> bool:
        """Return whether something is to be done, or under way, for an agent."""
        with self._lock:
            return agent in self._steps

    def close(self, deadline: Deadline) -> None:
        """Drop what is not under way, and wait for the rest (unless called from it) until the deadline. Idempotent."""
        with self._lock:
            self._is_closed = True
            self._ready.clear()
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(deadline.remaining())

    def _run(self) -> None:
        agent = None
        while True:
            with self._lock:
                if agent is not None:
                    self._settle(agent)
                if not self._ready:
                    self._threads.remove(threading.current_thread())
                    return
                agent = self._ready.popleft()
                step = self._steps[agent][0]
            try:
                step()
            except ClosedError:
                pass
            except Exception:  # whatever one agent's metadata does, the others' events go on
                log.exception("agent %r could not follow %r", self._name, agent)

    def _settle(self, agent: str) -> None:
        """Note that an agent's step is done."""
        steps = self._steps[agent]
        steps.popleft()
        if not steps:
            del self._steps[agent]
        elif not self._is_closed:
            self._ready.append(agent)
