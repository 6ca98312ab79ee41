"""Who is in the directory: one read, no watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.metadata.key import agent_of, places

if TYPE_CHECKING:
    from trunkline.store.contract import Store


def list_names(store: Store, namespace: str, *, timeout: float | None) -> list[str]:
    """Return the names of all agents of a namespace, sorted: Trunkline's by their records, NIXL's by their keys.

    Only keys are read, all that start with the namespace. Keys of impossible names are ignored.
    """
    searched = places(namespace)
    keys = [entry.key for entry in store.list(f"{searched[0]}/", keys_only=True, timeout=timeout).entries]
    return sorted({name for place in searched for key in keys if (name := agent_of(place, key)) is not None})
