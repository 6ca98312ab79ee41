from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner, Result

from trunkline.cli.main import INTERRUPTED, CommandGroup
from trunkline.errors import TrunklineError


def run(error: BaseException, *arguments: str) -> Result:
    """Run a command that ends with this error, in the way our commands run."""
    program = typer.Typer(cls=CommandGroup, pretty_exceptions_enable=False)

    @program.callback()
    def options(*, verbose: bool = False) -> None:
        pass

    @program.command()
    def fail() -> None:
        raise error

    return CliRunner().invoke(program, [*arguments, "fail"])


def test_an_error_is_one_line_and_status_1() -> None:
    result = run(TrunklineError("the store is away; start it"))
    assert result.exit_code == 1
    assert result.stderr == "trunkline: the store is away; start it\n"
    assert result.stdout == ""


def test_verbose_shows_where_it_comes_from() -> None:
    result = run(TrunklineError("the store is away"), "--verbose")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("trunkline: the store is away\n")


def test_an_interrupt_is_status_130() -> None:
    assert run(KeyboardInterrupt()).exit_code == INTERRUPTED == 130


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["take"], ["take", "x"], ["offer", "--name"], ["take", "x", "-o", "y", "--timeout", "-1"]],
)
def test_bad_usage_is_status_2(arguments: list[str]) -> None:
    from trunkline.cli.main import app

    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_an_unknown_model_is_bad_usage() -> None:
    from trunkline.cli.main import app

    result = CliRunner().invoke(app, ["demo", "--model", "gpt-0"])
    assert result.exit_code == 2
    assert "llama-3.1-8b" in result.stderr


def test_help_needs_nothing_heavy() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from trunkline.cli.main import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "print([name for name in ('numpy', 'grpc', 'trunkline.agent.agent') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
