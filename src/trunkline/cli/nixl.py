"""``trunkline nixl-path`` and ``trunkline as-nixl``: programs written for NVIDIA's ``nixl`` run on Trunkline."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from trunkline.errors import ConfigurationError

PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""So that a program's options stay its own."""


def nixl_path() -> None:
    """Print the directory that makes `import nixl` Trunkline's: PYTHONPATH="$(trunkline nixl-path)" program."""
    from trunkline.nixl.place import shim_path

    typer.echo(str(shim_path()))


def as_nixl(
    command: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARGUMENT]...", help="What to run.")],
) -> None:
    """Run a program in which `import nixl` is Trunkline's, in its child processes too."""
    from trunkline.nixl.place import environment_as_nixl

    try:
        os.execvpe(command[0], command, environment_as_nixl())  # noqa: S606 - the caller's own program
    except OSError as error:
        raise ConfigurationError(
            f"{command[0]!r} can't be run: {error.strerror}; give a program, and its arguments behind it"
        ) from error
