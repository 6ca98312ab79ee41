"""``trunkline offer``: let other processes read a file or directory out of this one's memory."""

from __future__ import annotations

import contextlib
import shlex
import time
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.option import Credentials, Devices, Namespace, Store, Ttl, parse_attributes
from trunkline.errors import SessionLostError
from trunkline.offer.manifest import DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE

if TYPE_CHECKING:
    from trunkline.cli.store import FoundStore
    from trunkline.offer.manifest import Manifest

LOOK_INTERVAL = 1.0
"""Seconds between two looks at whether the offer can still be found."""


def offer(
    path: Annotated[Path, typer.Argument(help="The file or directory; links in a directory are skipped.")],
    name: Annotated[str, typer.Option(help="What takers call it.")],
    *,
    mmap: Annotated[
        bool,
        typer.Option(
            "--mmap",
            help="Map the files instead of copying them into memory. Risky: if one is truncated this process is "
            "killed (SIGBUS), and changes are served, which takers then refuse.",
        ),
    ] = False,
    chunk_size: Annotated[
        int, typer.Option(min=MIN_CHUNK_SIZE, max=MAX_CHUNK_SIZE, help="Bytes per checksum.")
    ] = DEFAULT_CHUNK_SIZE,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", "-a", metavar="KEY=VALUE", help="What others see and select by; may be repeated."),
    ] = None,
    store: Store = None,
    credentials: Credentials = None,
    namespace: Namespace = None,
    devices: Devices = None,
    ttl: Ttl = None,
) -> None:
    """Offer a file or directory until Ctrl-C; prints the command that takes it.

    The content is read into memory and hashed first. A .safetensors file can also be read tensor by tensor.
    """
    from rich.filesize import decimal

    from trunkline import Agent
    from trunkline.cli.progress import show_progress
    from trunkline.cli.store import find_store
    from trunkline.offer.offering import register_offer
    from trunkline.offer.source import find_source, load_source

    attributes = parse_attributes(attribute or (), "--attribute")
    source = find_source(path)
    for reason in source.skipped:
        typer.echo(f"skipped {reason}", err=True)
    with (
        find_store(store, credentials) as found,
        Agent(
            name,
            store=found.url,
            store_options=found.options,
            namespace=namespace,
            attributes=attributes,
            devices=devices,
            ttl=ttl,
        ) as agent,
    ):
        with show_progress(f"reading {source.name}") as bar:
            bar.start(source.size)
            manifest, contents = load_source(source, chunk_size=chunk_size, is_mapped=mmap, on_progress=bar.advance)
        for reason in register_offer(agent, manifest, contents):
            typer.echo(reason, err=True)
        agent.publish()
        typer.echo(f"offering {count_files(manifest)}, {decimal(manifest.total)}, as {name!r} until Ctrl-C", err=True)
        _explain_reach(found)
        typer.echo(take_command(name, source.name, found, namespace))
        with contextlib.suppress(KeyboardInterrupt):
            while agent.health().is_live:  # a name that is lost for a while comes back by itself
                time.sleep(LOOK_INTERVAL)
            raise SessionLostError(
                f"nobody finds {name!r} any more: {agent.lost}. Run the command again", agent=name, reason=agent.lost
            )
        typer.echo("withdrawn", err=True)


def take_command(name: str, file: str, found: FoundStore, namespace: str | None) -> str:
    """Return the command that takes the offer, fit for a shell."""
    words = ["trunkline", "take", "-o", f"./{file}" if file.startswith("-") else file]
    if found.is_given:
        words += ["--store", found.url]
    if namespace is not None:
        words += ["--namespace", namespace]
    return shlex.join([*words, *(("--", name) if name.startswith("-") else (name,))])


def count_files(manifest: Manifest) -> str:
    """Return how many files there are, in words."""
    return "1 file" if len(manifest.files) == 1 else f"{len(manifest.files):,} files"


def _explain_reach(found: FoundStore) -> None:
    if found.is_on_loopback:
        typer.echo(
            "This works on this machine only, since its etcd listens on loopback. For others run an etcd that they "
            "can reach, and give --store etcd://HOST:2379 here and there.",
            err=True,
        )
