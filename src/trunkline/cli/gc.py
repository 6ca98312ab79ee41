"""``trunkline gc``: keys that nobody will take back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.option import AsJson, Credentials, GivenStore, Namespace, StoreTimeout  # noqa: TC001 - typer reads the annotations
from trunkline.cli.table import print_table
from trunkline.text import escape

if TYPE_CHECKING:
    from trunkline.inspection.garbage import Collected, Plan


def gc(
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Delete; without it nothing is.")] = False,
    nixl_agents: Annotated[
        str | None,
        typer.Option(
            metavar="NAME-PATTERN",
            help="Also the keys of NIXL's own agents of these names. Nothing tells whether they live: ping first.",
        ),
    ] = None,
    as_json: AsJson = False,
    timeout: StoreTimeout = 10.0,
    store: GivenStore = None,
    credentials: Credentials = None,
    namespace: Namespace = None,
) -> None:
    """List keys under the namespace that nobody will take back, and delete them if told to.

    Keys with a lease, and all of agents that have one, are never touched; nor is what changes meanwhile. For left-over
    keys of NIXLBench give its own prefix: --namespace xferbench.
    """
    from trunkline.cli.store import require_store
    from trunkline.inspection.facts import plan_facts
    from trunkline.inspection.garbage import collect, find_left_over
    from trunkline.metadata.key import DEFAULT_NAMESPACE

    with require_store(store, credentials).open() as opened:
        plan = find_left_over(opened, namespace or DEFAULT_NAMESPACE, nixl_agents=nixl_agents, timeout=timeout)
        collected = collect(opened, plan, timeout=timeout) if apply else None
    if as_json:
        typer.echo(json.dumps(plan_facts(plan, collected)))
        return
    _print_plan(plan, collected)


def _print_plan(plan: Plan, collected: Collected | None) -> None:
    if not plan.left_over:
        typer.echo(f"nothing is left over under {escape(plan.prefix)}")
        return
    gone = set(collected.deleted) if collected is not None else set()
    changed = set(collected.kept) if collected is not None else set()
    rows = []
    for each in plan.left_over:
        for entry in each.entries:
            fate = "to delete" if each.is_chosen else "kept: not named"
            if entry.key in gone:
                fate = "deleted"
            elif entry.key in changed:
                fate = "kept: changed meanwhile"
            rows.append((entry.key, str(each.reason), fate))
    print_table(("KEY", "WHY", "FATE"), rows)
    count = sum(len(each.entries) for each in plan.chosen)
    if collected is None and count:
        typer.echo(f"{count:,} keys to delete; --apply deletes them", err=True)
    elif collected is None:
        typer.echo("nothing to delete; --nixl-agents NAME chooses NIXL agents that you know are dead", err=True)
    else:
        typer.echo(f"{len(gone):,} keys deleted, {len(changed):,} kept since they changed meanwhile", err=True)
