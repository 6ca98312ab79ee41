"""What ``--json`` says: plain dictionaries whose names stay as they are."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trunkline.directory.event import (
    NameConflict,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreBack,
    StoreLost,
    Synced,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.directory.event import DirectoryEvent
    from trunkline.directory.view import AgentListing
    from trunkline.inspection.detail import AgentDetail, LabelDetail
    from trunkline.inspection.doctor import Report
    from trunkline.inspection.garbage import Collected, Plan
    from trunkline.inspection.overview import AgentOverview
    from trunkline.inspection.probe import Probe
    from trunkline.metadata.catalog import Catalog

_EVENT_NAMES = {
    PeerJoined: "joined",
    PeerUpdated: "updated",
    PeerSuspect: "suspect",
    PeerLeft: "left",
    Synced: "synced",
    StoreLost: "store_lost",
    StoreBack: "store_back",
    NameConflict: "name_conflict",
}


def listing_facts(agent: AgentListing) -> dict[str, Any]:
    """Return an agent as ``wait`` and ``watch`` tell of it."""
    return {
        "name": agent.name,
        "incarnation": agent.incarnation,
        "host": agent.host,
        "pid": agent.pid,
        "attributes": dict(agent.attributes),
        "labels": dict(agent.labels),
        "is_nixl": agent.is_nixl,
        "state": agent.state,
    }


def agent_facts(agent: AgentOverview) -> dict[str, Any]:
    """Return an agent as ``agents`` lists it."""
    return {
        "name": agent.name,
        "namespace": agent.namespace,
        "state": agent.state,
        "is_nixl": agent.is_nixl,
        "incarnation": agent.incarnation,
        "host": agent.host,
        "pid": agent.pid,
        "software": agent.software,
        "opened_at": agent.opened_at or None,
        "age": agent.age,
        "backends": list(agent.backends),
        "labels": dict(agent.labels),
        "attributes": dict(agent.attributes),
        "memory": None if agent.memory is None else dict(agent.memory),
        "lease": f"{agent.lease:x}" if agent.lease else None,
        "ttl": agent.ttl or None,
        "lease_remaining": agent.lease_remaining,
        "revision": agent.revision,
    }


def detail_facts(detail: AgentDetail) -> dict[str, Any]:
    """Return an agent as ``show`` tells of it."""
    return {
        **agent_facts(detail.overview),
        "elsewhere": list(detail.elsewhere),
        "keys": [
            {
                "key": key.entry.key,
                "kind": str(key.kind),
                "create_revision": key.entry.create_revision,
                "mod_revision": key.entry.mod_revision,
                "lease": f"{key.entry.lease:x}" if key.entry.lease else None,
            }
            for key in detail.keys
        ],
        "published": [_label_facts(label) for label in detail.labels],
        "catalog": None if detail.catalog is None else _catalog_facts(detail.catalog),
        "catalog_error": detail.catalog_flaw or None,
    }


def probe_facts(probe: Probe) -> dict[str, Any]:
    """Return what ``ping`` measured; times in microseconds."""
    return {
        "name": probe.name,
        "is_nixl": probe.is_nixl,
        "incarnation": probe.incarnation,
        "host": probe.host,
        "pid": probe.pid,
        "store_us": _microseconds(probe.control),
        "connect_us": None if probe.connect is None else round(probe.connect * 1e6, 1),
        "read_us": _microseconds(probe.reads),
        "read_bytes": probe.size,
        "memory_kind": probe.kind or None,
        "transports": list(probe.transports),
        "error": None if probe.error is None else str(probe.error),
    }


def report_facts(report: Report) -> dict[str, Any]:
    """Return what ``doctor`` found."""
    return {
        "store": report.store or None,
        "namespace": report.namespace,
        "is_healthy": report.is_healthy,
        "findings": [asdict(finding) for finding in report.findings],
    }


def plan_facts(plan: Plan, collected: Collected | None) -> dict[str, Any]:
    """Return what ``gc`` found, and what became of it."""
    return {
        "namespace": plan.namespace,
        "revision": plan.revision,
        "left_over": [
            {
                "owner": each.owner,
                "reason": each.reason.name.lower(),
                "is_chosen": each.is_chosen,
                "keys": [entry.key for entry in each.entries],
            }
            for each in plan.left_over
        ],
        "deleted": None if collected is None else list(collected.deleted),
        "kept": None if collected is None else list(collected.kept),
    }


def event_facts(event: DirectoryEvent) -> dict[str, Any]:
    """Return an event as ``watch`` tells it."""
    facts: dict[str, Any] = {"event": _EVENT_NAMES[type(event)]}
    match event:
        case PeerJoined() | PeerSuspect():
            facts |= listing_facts(event.agent)
        case PeerUpdated():
            facts |= listing_facts(event.agent) | {"label": event.label, "generation": event.generation}
        case PeerLeft():
            facts |= listing_facts(event.agent) | {"reason": str(event.reason)}
        case StoreLost():
            facts |= {"reason": event.reason}
        case NameConflict():
            facts |= {"name": event.name, "key": event.key, "is_lost": event.is_lost}
        case Synced() | StoreBack():
            pass
    return facts


def _label_facts(label: LabelDetail) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "label": label.label,
        "revision": label.revision or None,
        "size": label.size,
        "error": label.flaw or None,
        "agent": None,
        "connections": {},
        "sections": [],
    }
    if label.metadata is not None:
        facts["agent"] = label.metadata.agent
        facts["connections"] = {name: len(info) for name, info in label.metadata.connections.items()}
        facts["sections"] = [
            {
                "backend": section.backend,
                "kind": section.kind.name,
                "regions": [
                    {"address": address, "length": length, "device": device, "key_size": size}
                    for (address, length, device), size in zip(
                        section.segments.tolist(), section.keys.size.tolist(), strict=True
                    )
                ],
            }
            for section in label.metadata.sections
        ]
    return facts


def _catalog_facts(catalog: Catalog) -> dict[str, Any]:
    return {
        "tensors": [
            {
                "name": tensor.name,
                "kind": tensor.kind.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "address": tensor.address,
                "nbytes": tensor.nbytes,
                "device": tensor.device,
            }
            for tensor in catalog.tensors
        ],
        "groups": {name: list(members) for name, members in catalog.groups.items()},
    }


def _microseconds(times: Sequence[float]) -> list[float]:
    return [round(each * 1e6, 1) for each in times]
