"""``trunkline show``: one agent in full."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.option import AsJson, Credentials, GivenStore, Namespace, StoreTimeout  # noqa: TC001 - typer reads the annotations
from trunkline.cli.table import duration, make_console, pairs, print_table, size
from trunkline.text import escape

if TYPE_CHECKING:
    from trunkline.inspection.detail import AgentDetail, LabelDetail
    from trunkline.metadata.catalog import Catalog
    from trunkline.metadata.model import SectionMetadata

ROWS_ON_TERMINAL = 50
"""How many rows of one list a terminal is shown unless all are asked for."""


def show(
    name: Annotated[str, typer.Argument(help="The agent.")],
    *,
    every: Annotated[
        bool, typer.Option("--all", help="All regions and tensors, not 50 of each on a terminal.")
    ] = False,
    as_json: AsJson = False,
    timeout: StoreTimeout = 10.0,
    store: GivenStore = None,
    credentials: Credentials = None,
    namespace: Namespace = None,
) -> None:
    """Show one agent: who and since when, its keys, its metadata region by region, its catalog. Writes nothing."""
    from trunkline.cli.store import require_store
    from trunkline.inspection.detail import read_detail
    from trunkline.inspection.facts import detail_facts
    from trunkline.metadata.key import DEFAULT_NAMESPACE

    with require_store(store, credentials).open() as opened:
        detail = read_detail(opened, namespace or DEFAULT_NAMESPACE, name, timeout=timeout)
    if as_json:
        typer.echo(json.dumps(detail_facts(detail)))
        return
    limit = ROWS_ON_TERMINAL if make_console().is_terminal and not every else None
    _show_agent(detail)
    for label in detail.labels:
        _show_label(label, limit)
    if detail.catalog is not None:
        _show_catalog(detail.catalog, limit)
    if detail.catalog_flaw:
        typer.echo(f"\nThe catalog can't be read: {escape(detail.catalog_flaw)}")


def _show_agent(detail: AgentDetail) -> None:
    agent = detail.overview
    opened = datetime.fromtimestamp(agent.opened_at, UTC).isoformat(" ", "seconds") if agent.opened_at else "not said"
    facts = {
        "name": agent.name,
        "namespace": agent.namespace,
        "state": f"{agent.state}, one of NIXL's own" if agent.is_nixl else agent.state,
        "process": f"{agent.pid} on {agent.host}" if agent.pid else "not said",
        "software": agent.software or "not said",
        "opened": opened + (f" ({duration(agent.age)} ago)" if agent.age is not None else ""),
        "incarnation": agent.incarnation or "-",
        "backends": ", ".join(agent.backends) or "not said",
        "attributes": pairs(dict(agent.attributes)),
        "memory": ", ".join(f"{kind} {size(count)}" for kind, count in (agent.memory or {}).items()) or "-",
        "lease": "none: its keys stay if it dies",
    }
    if agent.lease:
        facts["lease"] = f"{agent.lease:x}"
        if agent.lease_remaining is not None:
            facts["lease"] += f", {agent.lease_remaining:g} s left of {agent.ttl:g} s"
    if detail.elsewhere:
        facts["also under"] = ", ".join(detail.elsewhere)
    for title, text in facts.items():
        typer.echo(f"{title + ':':<13}{escape(text)}")
    typer.echo()
    print_table(
        ("KEY", "KIND", "CREATED", "CHANGED", "LEASE"),
        [
            (
                key.entry.key,
                str(key.kind),
                f"r{key.entry.create_revision}",
                f"r{key.entry.mod_revision}",
                f"{key.entry.lease:x}" if key.entry.lease else "-",
            )
            for key in detail.keys
        ],
    )


def _show_label(label: LabelDetail, limit: int | None) -> None:
    written = f", {size(label.size)}, written at revision {label.revision}" if label.revision else ""
    typer.echo(f"\nLabel {escape(label.label)}{written}")
    if label.flaw:
        typer.echo(f"  can't be used: {escape(label.flaw)}")
    if label.metadata is None:
        return
    for backend, info in label.metadata.connections.items():
        typer.echo(f"  connection: {escape(backend)}, {len(info)} bytes")
    for section in label.metadata.sections:
        _show_section(section, limit)


def _show_section(section: SectionMetadata, limit: int | None) -> None:
    count = len(section.segments)
    typer.echo(f"  {escape(section.backend)} {section.kind.name}: {count:,} region{'s' * (count != 1)}")
    regions = zip(section.segments[:limit].tolist(), section.keys.size[:limit].tolist(), strict=True)
    print_table(
        ("  ADDRESS", "LENGTH", "DEVICE", "KEY"),
        [
            (f"  {address:#018x}", str(length), str(device), f"{key} bytes")
            for (address, length, device), key in regions
        ],
    )
    _say_more(count, limit)


def _show_catalog(catalog: Catalog, limit: int | None) -> None:
    typer.echo(f"\nCatalog: {len(catalog.tensors):,} tensors, {len(catalog.groups):,} groups")
    print_table(
        ("  NAME", "KIND", "DTYPE", "SHAPE", "ADDRESS", "SIZE", "DEVICE"),
        [
            (
                f"  {tensor.name}",
                tensor.kind.name,
                tensor.dtype or "bytes",
                "×".join(map(str, tensor.shape)) or "scalar",
                f"{tensor.address:#018x}",
                str(tensor.nbytes),
                str(tensor.device),
            )
            for tensor in catalog.tensors[:limit]
        ],
    )
    _say_more(len(catalog.tensors), limit)
    for name, members in list(catalog.groups.items())[:limit]:
        typer.echo(f"  group {escape(name)}: {len(members):,} tensors")


def _say_more(count: int, limit: int | None) -> None:
    if limit is not None and count > limit:
        typer.echo(f"  … and {count - limit:,} more; --all shows them")
