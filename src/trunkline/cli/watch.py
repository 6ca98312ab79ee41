"""``trunkline watch``: who comes, changes and goes."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.option import AsJson, Credentials, GivenStore, Namespace, Pattern, Selector, parse_attributes
from trunkline.cli.table import pairs
from trunkline.text import escape

if TYPE_CHECKING:
    from trunkline.directory.event import DirectoryEvent
    from trunkline.directory.view import AgentListing


def watch(
    pattern: Pattern = "*",
    *,
    selector: Selector = None,
    include_nixl: Annotated[
        bool,
        typer.Option(
            help="Tell of NIXL's own agents too; all that is published under the namespace is then sent here."
        ),
    ] = True,
    as_json: AsJson = False,
    store: GivenStore = None,
    credentials: Credentials = None,
    namespace: Namespace = None,
) -> None:
    """Print what happens, a line each: first who is there, then who comes, changes and goes. Until Ctrl-C.

    Writes nothing. While the store is away that is said, and what was missed follows.
    """
    from trunkline.cli.store import require_store
    from trunkline.directory.directory import Directory
    from trunkline.inspection.facts import event_facts
    from trunkline.metadata.key import DEFAULT_NAMESPACE

    attributes = parse_attributes(selector or (), "--selector")
    with require_store(store, credentials).open() as opened:
        directory = Directory(opened, namespace=namespace or DEFAULT_NAMESPACE)
        with directory.watch(pattern, attributes=attributes, include_nixl=include_nixl) as events:
            for event in events:
                now = datetime.now().astimezone()
                if as_json:
                    typer.echo(json.dumps({"time": now.isoformat(timespec="milliseconds"), **event_facts(event)}))
                else:
                    typer.echo(f"{now:%H:%M:%S}  {describe(event)}")


def describe(event: DirectoryEvent) -> str:
    """Return an event as one line fit for a terminal."""
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

    match event:
        case PeerJoined():
            return escape(f"joined    {event.name}  {_describe_agent(event.agent)}")
        case PeerUpdated():
            what = event.agent.state if event.label is None else f"{event.label} is withdrawn"
            if event.generation is not None:
                what = f"{event.label} is now of generation {event.generation}"
            return escape(f"updated   {event.name}  {what}  {pairs(dict(event.agent.attributes))}")
        case PeerSuspect():
            return escape(f"suspect   {event.name}  its lease ran out, which may mean nothing")
        case PeerLeft():
            return escape(f"left      {event.name}  {event.reason}")
        case Synced():
            return "synced    those were all that are there"
        case StoreLost():
            return escape(f"lost      the store does not answer: {event.reason}")
        case StoreBack():
            return "back      the store answers again"
        case NameConflict():
            return escape(f"conflict  {event.name}  somebody else writes {event.key}")


def _describe_agent(agent: AgentListing) -> str:
    if agent.is_nixl:
        return "one of NIXL's own"
    if not agent.is_readable:
        return "its record is for newer readers"
    place = f"{agent.host} pid {agent.pid}" if agent.pid else "host not said"
    return f"{place}  {agent.state}  {pairs(dict(agent.attributes))}"
