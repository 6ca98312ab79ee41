"""Reading the files that describe a workload: bounded, and with errors that name the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SIZE = 4 << 20
"""The largest such file, in bytes."""
_JSON = msgspec.json.Decoder()


def refuse(path: Path, flaw: str) -> NoReturn:
    """Raise the error for a file that can't be used.

    Raises:
        ConfigurationError: Always.
    """
    raise ConfigurationError(f"{path} {flaw}", path=str(path))


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        ConfigurationError: It can't be read, is larger than MAX_SIZE, or is no UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}", path=str(path)) from error
    if len(content) > MAX_SIZE:
        refuse(path, f"is larger than {MAX_SIZE:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no UTF-8 from byte {error.start} on", path=str(path)) from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping that a JSON file holds, or a YAML file where the name ends in ``.yaml`` or ``.yml``.

    Raises:
        ConfigurationError: The file can't be read, or holds something else; or PyYAML is missing.
    """
    text = read_text(path)
    found = _parse_yaml(text, path) if path.suffix.lower() in {".yaml", ".yml"} else _parse_json(text, path)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        refuse(path, "holds no mapping of names to values")
    return found


def _parse_json(text: str, path: Path) -> object:
    try:
        return _JSON.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is no JSON: {error}", path=str(path)) from error


def _parse_yaml(text: str, path: Path) -> object:
    try:
        import yaml
    except ImportError as error:
        raise ConfigurationError(
            f"{path} can't be read without PyYAML; run: pip install 'trunkline[bench]'", path=str(path)
        ) from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date that is none
        words = " ".join(str(error).split())
        raise ConfigurationError(f"{path} is no YAML: {words}", path=str(path)) from error
