"""Opening an agent's backends and its engine."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from trunkline.backend.registry import create_backend
from trunkline.transfer.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.agent.agent import Agent
    from trunkline.backend.contract import Backend, BackendPeer


def open_engine(
    agent: Agent, backends: Sequence[str | Backend], *, devices: str | None, timeout: float | None, grace: float
) -> Engine:
    """Open the backends and start the engine; its threads must not keep a dropped agent alive.

    Raises:
        BackendUnavailableError: A backend can't be used here; those already opened are closed again.
    """
    reference = weakref.ref(agent)

    def link_failed(link: BackendPeer) -> None:
        owner = reference()
        if owner is not None:
            owner._link_failed(link)  # noqa: SLF001 - the agent's own hook

    opened: list[Backend] = []
    try:
        for backend in backends:
            found = _create(agent.name, backend, devices) if isinstance(backend, str) else backend
            opened.append(found)
        return Engine(agent.name, opened, timeout=timeout, grace=grace, on_link_failure=link_failed)
    except BaseException:
        for backend in opened:
            backend.close()
        raise


def _create(agent: str, backend: str, devices: str | None) -> Backend:
    options = {"devices": devices} if backend.lower() == "ucx" else {}
    return create_backend(backend, agent_name=agent, **options)
