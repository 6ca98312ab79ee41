"""``trunkline doctor``: what is wrong, and what to do."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.option import AsJson, Credentials, Devices, GivenStore, Namespace, StoreTimeout  # noqa: TC001 - typer reads the annotations
from trunkline.errors import NoStoreError
from trunkline.text import escape

if TYPE_CHECKING:
    from trunkline.inspection.finding import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(
    *,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FILE.tar.gz", help="Write one archive for a bug report, without secrets or metadata."),
    ] = None,
    as_json: AsJson = False,
    timeout: StoreTimeout = 3.0,
    store: GivenStore = None,
    credentials: Credentials = None,
    namespace: Namespace = None,
    devices: Devices = None,
) -> None:
    """Check the store, what lies in the namespace, and this machine. Writes nothing to the store.

    Exit status 1 if there is a problem; warnings don't count.
    """
    from trunkline.cli.store import require_store
    from trunkline.inspection.bundle import write_bundle
    from trunkline.inspection.doctor import examine
    from trunkline.inspection.facts import report_facts
    from trunkline.metadata.key import DEFAULT_NAMESPACE, MetadataKey

    where = namespace or DEFAULT_NAMESPACE
    MetadataKey(where, "any")  # refuses what can't be a namespace
    try:
        found = require_store(store, credentials)
    except NoStoreError:
        found = None
    report = examine(
        None if found is None else found.url,
        where,
        options={} if found is None else found.options,
        devices=devices,
        timeout=timeout,
    )
    if as_json:
        typer.echo(json.dumps(report_facts(report)))
    else:
        for finding in report.findings:
            _print(finding)
    if bundle is not None:
        write_bundle(bundle, report, os.environ)
        typer.echo(f"wrote {bundle}: look through it before you pass it on", err=True)
    if not report.is_healthy:
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    from trunkline.cli.table import make_console

    typer.secho(f"{finding.severity:<8}", nl=False, fg=_COLOURS.get(finding.severity))
    line = f" {finding.check:<12} {escape(finding.message)}"
    advice = f"{'':<22}→ {escape(finding.advice)}" if finding.advice else ""
    console = make_console()
    if console.is_terminal:
        line = textwrap.fill(line, max(60, console.width - 8), subsequent_indent=" " * 22, drop_whitespace=True)
        advice = textwrap.fill(advice, max(60, console.width), subsequent_indent=" " * 24)
    typer.echo(line)
    if advice:
        typer.echo(advice)
