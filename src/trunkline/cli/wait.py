"""``trunkline wait``: until the agents a script needs are there."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.option import AsJson, Credentials, Namespace, Pattern, Selector, Store, Timeout, parse_attributes
from trunkline.errors import DeadlineError, StoreUnavailableError
from trunkline.text import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trunkline.directory.gathering import Gathering
    from trunkline.directory.view import AgentListing

SHOWN_NAMES = 20
"""How many names a message lists."""


def wait(
    pattern: Pattern = "*",
    *,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many have to be there.")] = 1,
    selector: Selector = None,
    timeout: Timeout = 30.0,
    include_nixl: Annotated[
        bool,
        typer.Option(
            help="Count NIXL's own agents. Those that died stay listed, and all that is published under the "
            "namespace is sent here."
        ),
    ] = True,
    as_json: AsJson = False,
    store: Store = None,
    credentials: Credentials = None,
    namespace: Namespace = None,
) -> None:
    """Wait until that many agents are there and can be used; print the names of all that are.

    Agents that are draining, or whose lease ran out, don't count. Exit status 1 if there were not enough in time;
    with --timeout 0 those count that are there now.
    """
    from trunkline.cli.store import find_store
    from trunkline.directory.directory import Directory
    from trunkline.directory.gathering import wait_gathered
    from trunkline.inspection.facts import listing_facts
    from trunkline.metadata.key import DEFAULT_NAMESPACE

    attributes = parse_attributes(selector or (), "--selector")
    wanted = describe(pattern, attributes, count)
    with find_store(store, credentials) as found, found.open() as opened:
        directory = Directory(opened, namespace=namespace or DEFAULT_NAMESPACE)
        where = f"under {directory.namespace} in {opened.url}"
        with (
            show_state(f"waiting for {wanted} {where}") as show,
            directory.watch(pattern, attributes=attributes, include_nixl=include_nixl) as watch,
        ):
            gathering = wait_gathered(watch, count, timeout, on_change=lambda now: show(progress(now)))
    agents = gathering.present
    if gathering.outage is not None or not gathering.is_synced:
        reason = gathering.outage or "is it running and reachable there?"
        known = f"; when it last answered there were {state(gathering)}" if gathering.is_synced else ""
        raise StoreUnavailableError(
            f"waited {timeout:g} s for {wanted}, and the store at {opened.url} does not answer: {reason}{known}",
            url=opened.url,
        )
    if len(agents) < count:
        raise DeadlineError(f"waited {timeout:g} s for {wanted} {where}: {state(gathering)}", count=len(agents))
    typer.echo(json.dumps([listing_facts(agent) for agent in agents]) if as_json else "\n".join(_names(agents)))


def describe(pattern: str, attributes: dict[str, str], count: int) -> str:
    """Return what is waited for, in words."""
    words = "1 agent" if count == 1 else f"{count:,} agents"
    named = "" if pattern == "*" else f" called {pattern!r}"
    pairs = ", ".join(f"{key}={value}" for key, value in attributes.items())
    return escape(words + named + (f" with {pairs}" if pairs else ""))


def state(gathering: Gathering) -> str:
    """Return who was there by what the store last said, in words fit for a terminal."""
    present, unusable = gathering.present, gathering.unusable
    words = f"{len(present):,} there" + _list(present)
    if unusable:
        words += f"; {len(unusable):,} draining or suspect" + _list(unusable)
    return words


def progress(gathering: Gathering) -> str:
    """Return how the waiting stands, in words fit for a terminal."""
    if gathering.outage is not None:
        return f"the store does not answer: {escape(gathering.outage)}"
    return state(gathering) if gathering.is_synced else "asking who is there"


@contextmanager
def show_state(title: str) -> Iterator[Callable[[str], None]]:
    """Yield what shows a line on standard error: in place on a terminal, else one below the other as it changes."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(Text(title)) as status:
            yield lambda line: status.update(Text(f"{title}: {line}"))
        return
    typer.echo(title, err=True)
    last = ""

    def show(line: str) -> None:
        nonlocal last
        if line != last:
            typer.echo(line, err=True)
            last = line

    yield show


def _names(agents: Sequence[AgentListing]) -> list[str]:
    return [escape(agent.name) for agent in agents]


def _list(agents: Sequence[AgentListing]) -> str:
    if not agents:
        return ""
    more = f" and {len(agents) - SHOWN_NAMES:,} more" if len(agents) > SHOWN_NAMES else ""
    return f": {', '.join(_names(agents[:SHOWN_NAMES]))}{more}"
