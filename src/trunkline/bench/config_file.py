"""Options from a TOML file: the same names, at the top or in tables of any name."""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING, Any

from trunkline.bench.options import DEFAULTS, SHORTHANDS, WORKLOAD_DEFAULTS, Options, parse_size, settings
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read_options(path: Path) -> dict[str, Any]:
    """Return the options that a file sets.

    Raises:
        ConfigurationError: It can't be read, is not TOML, or sets something that is no option.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}", path=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}", path=str(path)) from error
    found: dict[str, Any] = {}
    for name, value in content.items():
        for key, each in value.items() if isinstance(value, dict) else [(name, value)]:
            option = key.replace("-", "_")
            if option in found:
                raise ConfigurationError(f"{path} sets {key} twice", path=str(path), option=option)
            found[option] = _checked(option, each, f"{path}: {key}")
    return found


def make_options(given: Mapping[str, Any], file: Path | None = None) -> Options:
    """Return the options of a run: those given, else those of the file, else the defaults.

    Args:
        given: Options by name; None stands for one that is not given.
        file: A TOML file.

    Raises:
        ConfigurationError: One can't be what it is set to. Whether they fit together is not looked at.
    """
    found = read_options(file) if file is not None else {}
    theirs = {name: value for name, value in given.items() if value is not None}
    values: dict[str, Any] = {}
    for source in (found, theirs):
        for short, names in SHORTHANDS.items():
            if short in source:
                values |= dict.fromkeys(names, source[short])
        values |= {name: value for name, value in source.items() if name not in SHORTHANDS}
    values = WORKLOAD_DEFAULTS.get(str(values.get("workload")).lower(), {}) | values
    return Options(**{name: _checked(name, value, f"--{name.replace('_', '-')}") for name, value in values.items()})


def _checked(name: str, value: Any, where: str) -> Any:
    """Return an option's value as its type has it."""
    name = SHORTHANDS.get(name, (name,))[0]
    setting = settings().get(name)
    if setting is None:
        names = [*settings(), *SHORTHANDS]
        similar = difflib.get_close_matches(name, names, 3) or [each for each in names if name and name in each][:3]
        hint = f"; similar ones are {', '.join(similar)}" if similar else "; see trunkline bench --help"
        raise ConfigurationError(f"{where} is no option{hint}", option=name)
    kind = type(DEFAULTS[name])
    if setting.is_size and isinstance(value, str):
        value = parse_size(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigurationError(f"{where} = {value!r} must be of type {kind.__name__}", option=name)
    if setting.choices:
        matching = [choice for choice in setting.choices if choice.lower() == str(value).lower()]
        if not matching:
            raise ConfigurationError(f"{where} = {value!r} is none of {', '.join(setting.choices)}", option=name)
        return matching[0]
    if setting.least is not None and not setting.least <= value < float("inf"):
        raise ConfigurationError(f"{where} = {value!r} must be a number from {setting.least:g} on", option=name)
    return value
