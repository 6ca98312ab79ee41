"""``trunkline ping``: whether an agent answers."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.option import AsJson, Credentials, Devices, GivenStore, Namespace, Timeout  # noqa: TC001 - typer reads the annotations
from trunkline.text import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.inspection.probe import Probe


def ping(
    name: Annotated[str, typer.Argument(help="The agent.")],
    *,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="How often to measure.")] = 5,
    as_json: AsJson = False,
    timeout: Timeout = 10.0,
    store: GivenStore = None,
    credentials: Credentials = None,
    namespace: Namespace = None,
    devices: Devices = None,
) -> None:
    """Look an agent up in the store, and read 8 bytes of its memory. Exit status 1 if that fails.

    Writes nothing to the store, and nobody sees this command there; the agent sees a connection.
    """
    from trunkline.cli.store import require_store
    from trunkline.inspection.facts import probe_facts
    from trunkline.inspection.probe import probe
    from trunkline.metadata.key import DEFAULT_NAMESPACE

    with require_store(store, credentials).open() as opened:
        found = probe(opened, namespace or DEFAULT_NAMESPACE, name, count=count, devices=devices, timeout=timeout)
    typer.echo(json.dumps(probe_facts(found)) if as_json else describe(found, opened.url))
    if found.error is not None:
        if not as_json:
            raise found.error
        raise typer.Exit(1)


def describe(found: Probe, url: str) -> str:
    """Return what was measured in lines fit for a terminal."""
    who = "one of NIXL's own" if found.is_nixl else f"pid {found.pid} on {found.host}"
    lines = [f"{found.name}: {who}", f"store:      {url}, {_times(found.control, 1e3, 'ms')}"]
    if found.connect is not None:
        lines.append(f"transports: {', '.join(found.transports) or 'not known'}")
        lines.append(
            f"connect:    {found.connect * 1e3:.1f} ms, the first read with it"
            if found.size
            else f"connect:    {found.connect * 1e3:.1f} ms; it offers no memory that could be read"
        )
    if found.reads:
        lines.append(f"read:       {found.size} bytes of {found.kind}, {_times(found.reads, 1e6, 'µs')}")
    return "\n".join(escape(line) for line in lines)


def _times(times: Sequence[float], scale: float, unit: str) -> str:
    figures = (min(times), median(times), max(times))
    return "least {:.3g}, median {:.3g}, most {:.3g} {unit} of {count}".format(
        *(each * scale for each in figures), unit=unit, count=len(times)
    )
