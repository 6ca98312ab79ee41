"""Opening an agent's backends and its engine."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from trunkline.backend.registry import create_backend
from trunkline.errors import BackendUnavailableError
from trunkline.memory.kind import MemoryKind
from trunkline.transfer.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from trunkline.agent.agent import Agent
    from trunkline.backend.contract import Backend, BackendPeer
    from trunkline.config import Settings

_STORAGE = (
    ("posix", frozenset({MemoryKind.FILE}), True),
    ("gds", frozenset({MemoryKind.FILE, MemoryKind.VRAM}), False),
    ("obj", frozenset({MemoryKind.OBJECT}), True),
)
"""Backends that are opened once all of these kinds of memory are registered, and whether there is no doing without."""


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


def open_companion(engine: Engine, settings: Settings) -> None:
    """Open cross-memory attach beside UCX, unless the environment says no; the engine knows why where it is not."""
    if "CMA" in engine.backends:
        return
    if settings.cma != "on":
        engine.unavailable["CMA"] = f"TRUNKLINE_CMA={settings.cma}"
        return
    try:
        backend = create_backend("cma", engine.name)
    except BackendUnavailableError as error:
        engine.unavailable["CMA"] = str(error)
        return
    try:
        engine.add_backend(backend)
    except BaseException:
        backend.close()
        raise


def storage_for(kinds: Collection[MemoryKind], opened: Collection[str]) -> list[tuple[str, bool]]:
    """Return the backends to open for files and objects, and whether they are needed."""
    return [
        (name, is_needed)
        for name, of_kinds, is_needed in _STORAGE
        if of_kinds <= set(kinds) and name.upper() not in opened
    ]


def _create(agent: str, backend: str, devices: str | None) -> Backend:
    options = {"devices": devices} if backend.lower() == "ucx" else {}
    return create_backend(backend, agent_name=agent, **options)
