"""``trunkline take``: fetch what another process offers."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.option import Credentials, Devices, Namespace, Store, Timeout, Ttl  # noqa: TC001 - typer reads the annotations

if TYPE_CHECKING:
    from trunkline.agent.agent import Agent


def take(
    name: Annotated[str, typer.Argument(help="What the offer is called, or the ticket of a direct one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Path of the file or directory to write.")],
    *,
    timeout: Timeout = 30.0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file or empty directory.")] = False,
    store: Store = None,
    credentials: Credentials = None,
    namespace: Namespace = None,
    devices: Devices = None,
    ttl: Ttl = None,
) -> None:
    """Take a file or directory that `trunkline offer` offers.

    Every chunk is verified. If it breaks off, run the same command again: what was verified is kept beside the
    destination, which itself appears only once it is complete. Files are readable by you alone.
    """
    from rich.filesize import decimal

    from trunkline.cli.offer import count_files
    from trunkline.cli.progress import show_progress
    from trunkline.offer.destination import check_destination
    from trunkline.offer.taker import Progress, take_direct
    from trunkline.offer.taker import take as take_offer
    from trunkline.offer.ticket import is_ticket, parse_ticket

    ticket = parse_ticket(name) if is_ticket(name) else None
    check_destination(output, is_directory=None, force=force)
    kept = 0
    with contextlib.ExitStack() as stack:
        if ticket is not None:
            agent = _open_alone(stack, devices)
        else:
            agent = _open_listed(stack, store, credentials, namespace=namespace, devices=devices, ttl=ttl)
        what = name if ticket is None else f"the offer at {ticket.address}"
        bar = stack.enter_context(show_progress(f"taking {what}"))

        def keep(count: int) -> None:
            nonlocal kept
            kept += count
            bar.advance(count)

        began = time.monotonic()

        def start(total: int) -> None:
            nonlocal began
            began = time.monotonic()  # the wait for the offer is no part of the rate
            bar.start(total)

        progress = Progress(start=start, keep=keep, advance=bar.advance)
        if ticket is not None:
            manifest = take_direct(agent, ticket, output, timeout=timeout, progress=progress, force=force)
        else:
            manifest = take_offer(agent, name, output, timeout=timeout, progress=progress, force=force)
        elapsed = time.monotonic() - began
    fetched = manifest.total - kept
    resumed = f" ({decimal(kept)} were there already)" if kept else ""
    typer.echo(
        f"took {count_files(manifest)}, {decimal(fetched)} in {elapsed:.2f} s, "
        f"{decimal(int(fetched / elapsed))}/s, verified{resumed}: {output}",
        err=True,
    )


def _open_listed(
    stack: contextlib.ExitStack,
    store: str | None,
    credentials: Path | None,
    *,
    namespace: str | None,
    devices: str | None,
    ttl: float | None,
) -> Agent:
    """Open an agent that finds others."""
    from trunkline import Agent
    from trunkline.cli.offer import unique_name
    from trunkline.cli.store import find_store

    found = stack.enter_context(find_store(store, credentials))
    agent = Agent(
        unique_name("take"),
        store=found.url,
        store_options=found.options,
        namespace=namespace,
        devices=devices,
        ttl=ttl,
    )
    return stack.enter_context(agent)


def _open_alone(stack: contextlib.ExitStack, devices: str | None) -> Agent:
    """Open an agent without a store."""
    from trunkline import Agent
    from trunkline.cli.offer import unique_name

    return stack.enter_context(Agent(unique_name("take"), store="", devices=devices))
