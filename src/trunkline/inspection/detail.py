"""One agent in full: what is known of it, all its keys, and what it published, decoded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from trunkline.clock import Deadline
from trunkline.directory.directory import Directory
from trunkline.errors import AgentNotFoundError, ConfigurationError, MetadataError
from trunkline.inspection.overview import AgentOverview, memory_by_kind, read_overview
from trunkline.metadata.catalog import Catalog, decode_catalog
from trunkline.metadata.codec import decode
from trunkline.metadata.key import DEFAULT_LABEL, MetadataKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.directory.publication import Publication
    from trunkline.inspection.keyspace import AgentKey
    from trunkline.metadata.model import AgentMetadata
    from trunkline.store.contract import Store

LABEL_TIMEOUT = 2.0
"""Seconds that one label may take whose keys don't fit together, as while it is being written."""


@dataclass(frozen=True, slots=True)
class LabelDetail:
    """What is published under one label.

    Attributes:
        label: The label.
        revision: The store's revision at which it was written; 0 if it could not be fetched.
        size: Bytes.
        metadata: The content; None if it can't be decoded.
        flaw: Why there is no content, or that it is another agent's; empty if all is well.
    """

    label: str
    revision: int = 0
    size: int = 0
    metadata: AgentMetadata | None = None
    flaw: str = ""


@dataclass(frozen=True, slots=True)
class AgentDetail:
    """One agent.

    Attributes:
        overview: It at a glance.
        keys: All its keys, sorted.
        labels: What it published.
        catalog: What it offers by name; None if there is no catalog, or it can't be decoded.
        catalog_flaw: Why it can't be.
        elsewhere: Other namespaces (the default one has two forms) that hold an agent of the same name.
    """

    overview: AgentOverview
    keys: tuple[AgentKey, ...]
    labels: tuple[LabelDetail, ...]
    catalog: Catalog | None
    catalog_flaw: str
    elsewhere: tuple[str, ...]


def read_detail(store: Store, namespace: str, name: str, *, timeout: float | None) -> AgentDetail:
    """Return all that a store holds of one agent. It needn't be alive.

    Raises:
        AgentNotFoundError: There is none of that name; names similar ones.
        ConfigurationError: No agent can be called that.
        StoreError: The store failed.
    """
    MetadataKey(namespace, name)  # refuses what can't be a name
    deadline = Deadline(timeout)
    directory = Directory(store, namespace=namespace)
    overview = read_overview(store, namespace, pattern=_literal(name), memory_budget=0, timeout=timeout)
    if not overview.agents:
        raise _not_found(store, namespace, name, [key.agent for key in overview.keyspace.keys])
    first, *others = sorted(overview.agents, key=lambda agent: (agent.is_nixl, -agent.revision))
    publications = [_fetch(directory, name, label, deadline) for label in first.labels]
    catalog, catalog_flaw = _find_catalog([found for found in publications if not isinstance(found, LabelDetail)])
    labels = tuple(found if isinstance(found, LabelDetail) else _decode(found) for found in publications)
    parts = [label.metadata for label in labels if label.metadata is not None]
    return AgentDetail(
        replace(first, memory=memory_by_kind(parts) if len(parts) == len(labels) else None),
        tuple(key for key in overview.keyspace.keys if (key.place, key.agent) == (first.namespace, name)),
        labels,
        catalog,
        catalog_flaw,
        tuple(agent.namespace for agent in others),
    )


def _fetch(directory: Directory, name: str, label: str, deadline: Deadline) -> Publication | LabelDetail:
    try:
        return directory.fetch(name, label=label, timeout=deadline.remaining(LABEL_TIMEOUT))
    except (AgentNotFoundError, MetadataError, ConfigurationError) as error:
        return LabelDetail(label, flaw=str(error))


def _decode(found: Publication) -> LabelDetail:
    size = len(found.metadata)
    try:
        metadata = decode(found.metadata)
    except MetadataError as error:
        return LabelDetail(found.label, found.revision, size, flaw=str(error))
    flaw = "" if metadata.agent == found.name else f"this is the metadata of agent {metadata.agent!r}"
    return LabelDetail(found.label, found.revision, size, metadata, flaw)


def _find_catalog(publications: Sequence[Publication]) -> tuple[Catalog | None, str]:
    content = next((each.catalog for each in publications if each.label == DEFAULT_LABEL), None)
    content = content or next((each.catalog for each in publications if each.catalog is not None), None)
    if content is None:
        return None, ""
    try:
        return decode_catalog(content), ""
    except MetadataError as error:
        return None, str(error)


def _literal(name: str) -> str:
    """Return the glob pattern that matches this name alone."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in name)


def _not_found(store: Store, namespace: str, name: str, names: Sequence[str]) -> AgentNotFoundError:
    similar = get_close_matches(name, set(names))
    return AgentNotFoundError(
        f"there is no agent {name!r} under {namespace} in {store.url}. "
        + (f"Similar names: {', '.join(map(repr, similar))}. " if similar else "")
        + "See who is there with: trunkline agents",
        agent=name,
        similar=similar,
    )
