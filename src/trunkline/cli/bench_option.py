"""The benchmark's settings as options of commands."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from trunkline.bench.options import DEFAULTS, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trunkline.bench.options import Setting


def annotation(name: str, setting: Setting, *, meaning: str = "", shown: str | None = None) -> Any:
    """Return what typer reads of a setting: None stands for one that is not given.

    Args:
        name: The setting's.
        setting: What it is.
        meaning: For the help, if not the setting's own.
        shown: Its default in the help, if not the setting's own.
    """
    default = DEFAULTS[name]
    kind: Any = str if setting.is_size else type(default)
    shown = _shown(default, setting) if shown is None else shown
    words = meaning or setting.meaning
    if setting.ignored:
        words += f" Accepted, and ignored: {setting.ignored}."
    if setting.choices:
        words += f" One of {', '.join(setting.choices)}."
    option = typer.Option(
        help=words + (f" Default {shown}." if shown else ""),
        metavar="SIZE" if setting.is_size else None,
        show_default=False,
        rich_help_panel=setting.panel,
    )
    return Annotated[kind | None, option]


def add_settings(command: Callable[..., None], names: Iterable[str]) -> None:
    """Give a command, whose last parameter takes all others, an option for each of some settings."""
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    theirs = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation(name, settings()[name])
        )
        for name in names
    ]
    signature = inspect.Signature([*own, *theirs])
    command.__signature__ = signature  # type: ignore[attr-defined] # what typer and inspect look at
    command.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}


def _shown(default: Any, setting: Setting) -> str:
    from trunkline.cli.table import size

    if default in ("", False, -1) or (default == 0 and not isinstance(default, bool)):
        return ""
    return size(default) if setting.is_size else f"{default:g}" if isinstance(default, float) else str(default)
