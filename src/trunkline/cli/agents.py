"""``trunkline agents``: who is there."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.option import (
    AsJson,
    Credentials,
    GivenStore,
    Namespace,
    Pattern,
    Selector,
    StoreTimeout,
    parse_attributes,
)
from trunkline.cli.table import duration, format_table, make_console, pairs, print_table, rich_table, size
from trunkline.errors import StoreUnavailableError
from trunkline.text import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.inspection.overview import AgentOverview, Overview

HEADER = ("NAME", "HOST", "PID", "AGE", "STATE", "BACKENDS", "LABELS", "MEMORY", "ATTRIBUTES", "LEASE")


def agents(
    pattern: Pattern = "*",
    *,
    selector: Selector = None,
    memory: Annotated[
        bool | None,
        typer.Option(
            help="Read all agents' metadata to say how much memory they offer, or none; by default up to 16 MiB of it."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
    interval: Annotated[
        float,
        typer.Option(
            min=0.1, max=3600, metavar="SECONDS", help="Between two looks of --watch, or five times what one takes."
        ),
    ] = 2.0,
    as_json: AsJson = False,
    timeout: StoreTimeout = 10.0,
    store: GivenStore = None,
    credentials: Credentials = None,
    namespace: Namespace = None,
) -> None:
    """List the agents of a namespace, Trunkline's and NIXL's own. Writes nothing.

    LEASE is the time until the agent vanishes if it does not refresh its lease; NIXL's own have none, and one that
    died stays listed.
    """
    from trunkline.cli.store import require_store
    from trunkline.inspection.overview import MEMORY_BUDGET, read_overview
    from trunkline.metadata.key import DEFAULT_NAMESPACE, MetadataKey

    attributes = parse_attributes(selector or (), "--selector")
    where = namespace or DEFAULT_NAMESPACE
    MetadataKey(where, "any")  # refuses what can't be a namespace
    budget = MEMORY_BUDGET if memory is None else None if memory else 0
    with require_store(store, credentials).open() as opened:

        def read() -> Overview:
            return read_overview(
                opened, where, pattern=pattern, attributes=attributes, memory_budget=budget, timeout=timeout
            )

        if watch:
            _watch(read, interval, as_json=as_json)
            return
        overview = read()
    if as_json:
        typer.echo(_to_json(overview))
        return
    print_table(HEADER, rows(overview))
    if overview.unread:
        typer.echo(
            f"the metadata of {overview.unread:,} agents was not read, as it is large: --memory reads it", err=True
        )


def rows(overview: Overview) -> list[tuple[str, ...]]:
    """Return what the table says of each agent."""
    return [
        (
            agent.name,
            agent.host or "-",
            str(agent.pid or "-"),
            duration(agent.age),
            f"{agent.state} (NIXL)" if agent.is_nixl else agent.state,
            ",".join(agent.backends) or "-",
            ",".join(agent.labels) or "-",
            _memory(agent),
            pairs(dict(agent.attributes)),
            duration(agent.lease_remaining),
        )
        for agent in overview.agents
    ]


def _memory(agent: AgentOverview) -> str:
    if agent.memory is None:
        return "?" if agent.labels else "-"
    return ", ".join(f"{kind} {size(count)}" for kind, count in agent.memory.items()) or "-"


def _to_json(overview: Overview) -> str:
    from trunkline.inspection.facts import agent_facts

    return json.dumps([agent_facts(agent) for agent in overview.agents])


def _watch(read: Callable[[], Overview], interval: float, *, as_json: bool) -> None:
    """Show how things stand, on a terminal in place, else each time that something other than time has changed."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    console = make_console()
    is_live = console.is_terminal and not as_json
    last: object = None
    overview: Overview | None = None
    with Live(console=console, auto_refresh=False) if is_live else console as live:
        while True:
            began = time.monotonic()
            outage = ""
            try:
                overview = read()
            except StoreUnavailableError as error:
                outage = escape(str(error))
            state = (outage, overview and tuple(_timeless(agent) for agent in overview.agents))
            if isinstance(live, Live):
                table = rich_table(HEADER, rows(overview) if overview else [])
                live.update(Group(table, Text(outage, style="red")) if outage else table, refresh=True)
            elif outage and state != last:
                typer.echo(f"trunkline: {outage}", err=True)
            elif overview is not None and state != last:
                typer.echo(_to_json(overview) if as_json else f"{format_table(HEADER, rows(overview))}\n")
            last = state
            time.sleep(max(interval, 5 * (time.monotonic() - began)))


def _timeless(agent: AgentOverview) -> AgentOverview:
    from dataclasses import replace

    return replace(agent, age=None, lease_remaining=None)
