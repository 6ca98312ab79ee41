"""``trunkline bench``: one worker of a benchmark, or with --local all of them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from trunkline.bench.options import DEFAULTS, SHORTHANDS, settings
from trunkline.cli.bench_kv import kvcache
from trunkline.cli.bench_kv_run import requests, traffic
from trunkline.cli.bench_matrix import matrix
from trunkline.cli.bench_option import annotation
from trunkline.cli.bench_results import compare, import_, report

EITHER_SPELLING = {"token_normalize_func": lambda name: name.replace("_", "-")}
"""NIXLBench writes --block_size, others --block-size."""

TRUE, FALSE = ("1", "true", "t", "yes", "y"), ("0", "false", "f", "no", "n")
"""What gflags, and so scripts that were written for NIXLBench, give flags as values."""


class Group(TyperGroup):
    """Commands, and options whose flags may have a value: ``--recreate_xfer=1``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments, of which those of flags have no values any more."""
        return super().parse_args(ctx, [_without_value(each) for each in args])


def _without_value(argument: str) -> str:
    name, _, value = argument.partition("=")
    bare = name.removeprefix("--").replace("_", "-")
    if bare == name or DEFAULTS.get(bare.replace("-", "_")) is not False or value.lower() not in TRUE + FALSE:
        return argument
    return f"--{bare}" if value.lower() in TRUE else f"--no-{bare}"


app = typer.Typer(
    cls=Group,
    invoke_without_command=True,
    context_settings=EITHER_SPELLING,
    rich_markup_mode=None,
    add_completion=False,
)


def bench(context: typer.Context, *, config_file: Path | None, **given: Any) -> None:
    """Measure how fast blocks move between workers, or between memory and files or objects.

    On one machine: trunkline bench --local 2. On several: the same command on each, with --etcd-endpoints; rank 0
    prints the table. Options have NIXLBench's names, and may be written with _ or -; sizes as 64KiB.
    """
    from trunkline.bench.config_file import make_options
    from trunkline.bench.plan import check_options
    from trunkline.cli.bench_terminal import run_on_terminal

    is_given = config_file is not None or any(value is not None for value in given.values())
    if context.invoked_subcommand is not None:
        if is_given:
            raise typer.BadParameter(f"the options before {context.invoked_subcommand!r} are for a run; leave them out")
        return
    options = make_options(given, config_file)
    check_options(options)
    run_on_terminal(options)


def _signature() -> inspect.Signature:
    """Return the command's parameters: an option for each setting, None where it is not given."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        inspect.Parameter(
            "config_file",
            keyword,
            default=None,
            annotation=Annotated[
                Path | None, typer.Option(help="TOML file with options; the command line wins.", metavar="FILE")
            ],
        ),
    ]
    for name, setting in settings().items():
        parameters.append(inspect.Parameter(name, keyword, default=None, annotation=annotation(name, setting)))
    for short, (start, most) in SHORTHANDS.items():
        setting = settings()[start]
        both = f"Both --{start.replace('_', '-')} and --{most.replace('_', '-')}."
        parameters.append(
            inspect.Parameter(
                short, keyword, default=None, annotation=annotation(start, setting, meaning=both, shown="")
            )
        )
    return inspect.Signature(parameters)


bench.__signature__ = _signature()  # type: ignore[attr-defined] # what typer and inspect look at
bench.__annotations__ = {
    name: parameter.annotation
    for name, parameter in bench.__signature__.parameters.items()  # type: ignore[attr-defined]
}
app.callback()(bench)
for command in (matrix, kvcache, requests, traffic, compare, report):
    app.command()(command)
app.command("import")(import_)
