"""``trunkline demo``: the main job on this machine, measured and checked."""

from __future__ import annotations

import enum
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.option import Credentials, Ttl  # noqa: TC001 - typer reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.demo.run import Report
    from trunkline.etcd.keeper import Keeper


class Transport(enum.StrEnum):
    DEFAULT = "default"
    TCP = "tcp"


def demo(
    model: Annotated[str, typer.Option(help="Whose KV cache: llama-3.1-8b, qwen2.5-7b ...")] = "llama-3.1-8b",
    blocks: Annotated[int, typer.Option(min=2, max=4096, help="Blocks of 16 tokens in prefill's cache.")] = 128,
    transport: Annotated[Transport, typer.Option(help="UCX's choice, or TCP.")] = Transport.DEFAULT,
    devices: Annotated[str, typer.Option(help="Network interfaces that UCX may use.")] = "lo",
    store: Annotated[str | None, typer.Option(metavar="URL", help="Else an etcd of the demo's own.")] = None,
    credentials: Credentials = None,
    ttl: Ttl = None,
) -> None:
    """Move a KV cache between two processes: publish, find, read, verify, survive a death.

    Ends by itself; exit status 0 only if every check held.
    """
    from trunkline.demo.model import MODELS
    from trunkline.demo.run import run_demo

    if model not in MODELS:
        raise typer.BadParameter(f"{model!r} is none of {', '.join(MODELS)}", param_hint="--model")
    # UCX would report the death that the demo is about as an error.
    environment = {"UCX_LOG_LEVEL": "fatal"} | ({"UCX_TLS": "tcp"} if transport is Transport.TCP else {})
    if credentials is not None and store is None:
        raise typer.BadParameter("for which store? Give --store as well", param_hint="--credentials")
    from trunkline.etcd.keeper import Keeper

    with Keeper("trunkline-demo-") as keeper, _open_store(store, keeper) as url:
        report = run_demo(
            url,
            keeper,
            credentials="" if store is None else None if credentials is None else str(credentials),
            model=model,
            blocks=blocks,
            devices=devices,
            environment=environment,
            ttl=ttl,
        )
    print_report(report, f"{model}, {transport.value} transport")
    if not report.ok:
        raise typer.Exit(1)


@contextmanager
def _open_store(url: str | None, keeper: Keeper) -> Iterator[str]:
    if url is not None:
        yield url
        return
    from trunkline.etcd.server import EtcdServer

    with EtcdServer(keeper.directory).start(keeper=keeper) as server:
        yield server.endpoint


def print_report(report: Report, title: str) -> None:
    """Print what was measured and which checks held."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    figures = Table(title=f"trunkline demo: {title}", show_header=False)
    for name, value in report.figures.items():
        figures.add_row(name, Text(value))
    console.print(figures)
    for claim, held in report.checks.items():
        console.print(Text("✓ " if held else "✗ ", style="green" if held else "red") + Text(claim))
    if report.failure is not None:
        console.print(Text(f"✗ {report.failure}", style="red"))
