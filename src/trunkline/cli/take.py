"""``trunkline take``: fetch what another process offers."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from trunkline.cli.option import Credentials, Devices, Namespace, Store, Timeout, Ttl  # noqa: TC001 - typer reads the annotations


def take(
    name: Annotated[str, typer.Argument(help="What the offer is called.")],
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

    from trunkline import Agent
    from trunkline.cli.offer import count_files
    from trunkline.cli.progress import show_progress
    from trunkline.cli.store import find_store
    from trunkline.offer.destination import check_destination
    from trunkline.offer.taker import Progress
    from trunkline.offer.taker import take as take_offer

    check_destination(output, is_directory=None, force=force)
    kept = 0

    with (
        find_store(store, credentials) as found,
        Agent(
            own_name(),
            store=found.url,
            store_options=found.options,
            namespace=namespace,
            devices=devices,
            ttl=ttl,
        ) as agent,
        show_progress(f"taking {name}") as bar,
    ):

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
        manifest = take_offer(agent, name, output, timeout=timeout, progress=progress, force=force)
        elapsed = time.monotonic() - began
    fetched = manifest.total - kept
    resumed = f" ({decimal(kept)} were there already)" if kept else ""
    typer.echo(
        f"took {count_files(manifest)}, {decimal(fetched)} in {elapsed:.2f} s, "
        f"{decimal(int(fetched / elapsed))}/s, verified{resumed}: {output}",
        err=True,
    )


def own_name() -> str:
    """Return a name that no other process has: ``take-HOST-PID-RANDOM``."""
    host = "".join(character if character.isalnum() else "-" for character in socket.gethostname())[:64]
    return f"take-{host}-{os.getpid()}-{os.urandom(4).hex()}"
