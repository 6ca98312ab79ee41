"""What happens to open agents, and adapters of NVIDIA's, when the process forks or ends."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol

EXIT_TIMEOUT = 2.0
"""Seconds that closing an agent may take while the interpreter exits."""


class Closable(Protocol):
    """What an agent has in common with an adapter."""

    def close(self, timeout: float) -> None:
        """Give everything back within some seconds."""
        ...

    def _after_fork(self) -> None: ...


_open_agents: weakref.WeakSet[Closable] = weakref.WeakSet()
_hooked = False


def watch_over(agent: Closable) -> None:
    """Close the agent at exit, and make it unusable in forked children."""
    global _hooked  # noqa: PLW0603 - the hooks can be installed once per process only
    if not _hooked:
        _hooked = True
        atexit.register(_close_all)
        os.register_at_fork(after_in_child=_forsake_all)
    _open_agents.add(agent)


def let_go(agent: Closable) -> None:
    """The agent was closed."""
    _open_agents.discard(agent)


def _close_all() -> None:
    for agent in list(_open_agents):
        agent.close(timeout=EXIT_TIMEOUT)


def _forsake_all() -> None:
    for agent in list(_open_agents):
        agent._after_fork()  # noqa: SLF001 - the agent's own hook
    _open_agents.clear()
