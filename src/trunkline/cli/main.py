"""The ``trunkline`` command: its subcommands, and how their errors look."""

from __future__ import annotations

import os
import signal
import traceback
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from trunkline.cli.agents import agents
from trunkline.cli.bench import app as bench
from trunkline.cli.demo import demo
from trunkline.cli.doctor import doctor
from trunkline.cli.etcd import etcd
from trunkline.cli.gc import gc
from trunkline.cli.interrupt import interruptible
from trunkline.cli.nixl import PASS_ON, as_nixl, nixl_path
from trunkline.cli.offer import offer
from trunkline.cli.ping import ping
from trunkline.cli.rbac import rbac
from trunkline.cli.show import show
from trunkline.cli.take import take
from trunkline.cli.terminal import escape_logs
from trunkline.cli.wait import wait
from trunkline.cli.watch import watch
from trunkline.errors import TrunklineError
from trunkline.text import escape

if TYPE_CHECKING:
    from typer import Context

INTERRUPTED = 128 + signal.SIGINT
"""The exit status after Ctrl-C or SIGTERM, as a shell would report it."""


class CommandGroup(TyperGroup):
    """Runs a subcommand; an error of the tree becomes one line and exit status 1, an interrupt status 130."""

    def invoke(self, ctx: Context) -> Any:  # type: ignore[override] # typer's own Context
        try:
            with escape_logs(), interruptible():
                return super().invoke(ctx)
        except TrunklineError as error:
            if ctx.params.get("verbose"):
                typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)
            typer.secho(f"trunkline: {escape(str(error))}", err=True, fg="red")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(cls=CommandGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def trunkline(
    verbose: Annotated[bool, typer.Option("--verbose", help="Show where an error comes from.")] = False,
) -> None:
    """Moves tensors, KV cache and files between processes: find a peer by name, read its memory directly."""


for command in (offer, take, wait, agents, show, watch, ping, doctor, gc, rbac, demo, etcd):
    app.command()(command)
app.add_typer(bench, name="bench")
app.command("nixl-path")(nixl_path)
app.command("as-nixl", context_settings=PASS_ON)(as_nixl)


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 bad usage, 130 interrupted."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes to standard error what our errors say
    app(prog_name="trunkline")
