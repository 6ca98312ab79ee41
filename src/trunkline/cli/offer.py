"""``trunkline offer``: let other processes read a file or directory out of this one's memory."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import time
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from trunkline.cli.option import Credentials, Devices, Namespace, Store, Ttl, parse_attributes
from trunkline.errors import SessionLostError
from trunkline.offer.manifest import DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE

if TYPE_CHECKING:
    from trunkline.agent.agent import Agent
    from trunkline.cli.store import FoundStore
    from trunkline.exchange.address import Address
    from trunkline.offer.manifest import Manifest
    from trunkline.offer.source import Source
    from trunkline.offer.ticket import Ticket

LOOK_INTERVAL = 1.0
"""Seconds between two looks at whether the offer can still be found."""

LOOPBACK_DEVICE = "lo"
"""The interface that UCX may use where a direct offer is for this machine only."""


def offer(
    path: Annotated[Path, typer.Argument(help="The file or directory; links in a directory are skipped.")],
    name: Annotated[str | None, typer.Option(help="What takers call it; needed without --direct.")] = None,
    *,
    direct: Annotated[
        bool,
        typer.Option(
            "--direct",
            help="Without etcd: print a command with a ticket, secret, for one take, after which this ends. Everything "
            "stays on this machine, unless --listen says otherwise.",
        ),
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST[:PORT]", help="With --direct: where takers connect; default 127.0.0.1, free port."),
    ] = None,
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
    from trunkline import Agent
    from trunkline.cli.store import find_store
    from trunkline.offer.source import find_source

    if direct and name is not None:
        raise typer.BadParameter("a direct offer has a ticket instead of a name", param_hint="--name")
    if not direct and name is None:
        raise typer.BadParameter("what do takers call it? Or give --direct", param_hint="--name")
    if listen is not None and not direct:
        raise typer.BadParameter("it says where a direct offer listens: give --direct", param_hint="--listen")
    attributes = parse_attributes(attribute or (), "--attribute")
    address = parse_address(listen or "127.0.0.1")
    source = find_source(path)
    for reason in source.skipped:
        typer.echo(f"skipped {reason}", err=True)
    if name is None:
        if listen is None and "UCX_NET_DEVICES" not in os.environ:
            devices = devices or LOOPBACK_DEVICE
        with Agent(unique_name("offer"), store="", attributes=attributes, devices=devices) as agent:
            manifest = _register(agent, source, chunk_size=chunk_size, is_mapped=mmap)
            _serve_direct(agent, manifest, source.name, address)
        return
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
        manifest = _register(agent, source, chunk_size=chunk_size, is_mapped=mmap)
        agent.publish()
        typer.echo(f"offering {_describe(manifest)}, as {name!r} until Ctrl-C", err=True)
        _explain_reach(found)
        typer.echo(take_command(name, source.name, found, namespace))
        with contextlib.suppress(KeyboardInterrupt):
            while agent.health().is_live:  # a name that is lost for a while comes back by itself
                time.sleep(LOOK_INTERVAL)
            raise SessionLostError(
                f"nobody finds {name!r} any more: {agent.lost}. Run the command again", agent=name, reason=agent.lost
            )
        typer.echo("withdrawn", err=True)


def parse_address(text: str) -> Address:
    """Return what ``HOST``, ``HOST:PORT``, or an IPv6 address with or without brackets says; port 0 if it says none.

    Raises:
        typer.BadParameter: It is none.
    """
    from trunkline.exchange.address import Address

    if text.count(":") > 1 and "[" not in text:
        return Address(text, 0)
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname and parts.netloc == text and "@" not in text:
            return Address(parts.hostname, parts.port or 0)
    except ValueError:
        pass  # the port is none
    raise typer.BadParameter(f"{text[:80]!r} is not of the form HOST or HOST:PORT", param_hint="--listen")


def unique_name(job: str) -> str:
    """Return a name that no other process has: ``JOB-HOST-PID-RANDOM``."""
    host = "".join(character if character.isalnum() else "-" for character in socket.gethostname())[:64]
    return f"{job}-{host}-{os.getpid()}-{os.urandom(4).hex()}"


def take_command(name: str, file: str, found: FoundStore, namespace: str | None) -> str:
    """Return the command that takes the offer, fit for a shell."""
    words = ["trunkline", "take", "-o", f"./{file}" if file.startswith("-") else file]
    if found.is_given:
        words += ["--store", found.url]
    if namespace is not None:
        words += ["--namespace", namespace]
    return shlex.join([*words, *(("--", name) if name.startswith("-") else (name,))])


def direct_command(ticket: Ticket, file: str) -> str:
    """Return the command that takes a direct offer, fit for a shell."""
    return shlex.join(["trunkline", "take", "-o", f"./{file}" if file.startswith("-") else file, str(ticket)])


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


def _register(agent: Agent, source: Source, *, chunk_size: int, is_mapped: bool) -> Manifest:
    """Read what is to be offered, and register it."""
    from trunkline.cli.progress import show_progress
    from trunkline.offer.offering import register_offer
    from trunkline.offer.source import load_source

    with show_progress(f"reading {source.name}") as bar:
        bar.start(source.size)
        manifest, contents = load_source(source, chunk_size=chunk_size, is_mapped=is_mapped, on_progress=bar.advance)
    for reason in register_offer(agent, manifest, contents):
        typer.echo(reason, err=True)
    return manifest


def _serve_direct(agent: Agent, manifest: Manifest, file: str, address: Address) -> None:
    """Wait until it was taken by its ticket."""
    from trunkline.offer.direct import DirectOffer

    with DirectOffer(address, agent.card(), manifest) as offering:
        typer.echo(f"offering {_describe(manifest)}, until it was taken once, or Ctrl-C", err=True)
        typer.echo(direct_command(offering.ticket, file))
        try:
            while not offering.wait_taken(LOOK_INTERVAL):
                pass
            typer.echo("taken", err=True)
        except KeyboardInterrupt:
            typer.echo("withdrawn", err=True)


def _describe(manifest: Manifest) -> str:
    from rich.filesize import decimal

    return f"{count_files(manifest)}, {decimal(manifest.total)}"
