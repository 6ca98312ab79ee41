"""JSON: one document that holds a whole run, and its published schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from trunkline.bench.result import Row, Run
from trunkline.errors import ResultError

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = Run(rows=()).format

_MOST = 1 << 62

_OTHERS = {
    "trunkline-bench-requests/1": " (of `trunkline bench requests`: it has requests, no rows)",
    "trunkline-bench-traffic/1": " (of `trunkline bench traffic`: it has patterns, no rows)",
    "trunkline-kvcache/1": " (of `trunkline bench kvcache`: nothing was measured)",
}
"""Documents of ours that are no runs, and what they are."""

_decoder = msgspec.json.Decoder(Run)
_encoder = msgspec.json.Encoder()


class _Head(msgspec.Struct):
    format: object = None


_head_decoder = msgspec.json.Decoder(_Head)


def encode_json(run: Run) -> bytes:
    """Return the run as an indented JSON document in UTF-8."""
    return msgspec.json.format(_encoder.encode(run), indent=2) + b"\n"


def decode_json(data: bytes, source: str) -> Run:
    """Return the run that a JSON document holds; names it doesn't know are passed over.

    Args:
        data: The document.
        source: Where it is from, for messages.

    Raises:
        ResultError: It is not JSON, not a run, of a format that is not known, or holds impossible numbers.
    """
    advice = (
        "results with rows are written by `trunkline bench … --json`, `trunkline bench matrix … --json`, and by "
        "`trunkline bench import` from NIXLBench's text"
    )
    try:
        found = _head_decoder.decode(data).format
        if found != FORMAT:
            said = "says no format" if found is None else f"is of format {found!r}{_OTHERS.get(str(found), '')}"
            raise ResultError(f"{source} {said}, and {FORMAT!r} is what can be read; {advice}", path=source)
        run = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultError(f"{source} is not a benchmark's result: {error}; {advice}", path=source) from error
    for number, row in enumerate(run.rows):
        _check_row(row, f"{source}: row {number}")
    return run


def _check_row(row: Row, where: str) -> None:
    """Refuse numbers that no measurement gives and no plot can show."""
    for name in Row.__struct_fields__:
        value = getattr(row, name)
        least = 1 if name in {"block_size", "batch_size", "pairs"} else 0
        if isinstance(value, int | float) and not least <= value <= _MOST:
            raise ResultError(f"{where}: {name} does not lie between {least} and 2^62: it can't have been measured")


def make_schema() -> dict[str, Any]:
    """Return the JSON Schema of the document, its descriptions taken from the classes it describes."""
    (top,), components = msgspec.json.schema_components([Run], ref_template="#/$defs/{name}")
    for kind in (Run, Row):
        schema = components[kind.__name__]
        described = _described(kind.__doc__ or "")
        schema["description"] = described.pop("")
        for name, words in described.items():
            schema["properties"][name]["description"] = words
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A run of `trunkline bench`, format {FORMAT}",
        **top,
        "$defs": components,
    }


def encode_schema() -> bytes:
    """Return the schema as it is published in ``docs/bench-result.schema.json``."""
    return msgspec.json.format(_encoder.encode(make_schema()), indent=2) + b"\n"


def _described(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each attribute, and under the empty name its first line."""
    first, _, attributes = docstring.partition("Attributes:")
    found = {"": " ".join(first.split())}
    for line in _joined(attributes.splitlines()):
        name, _, words = line.partition(": ")
        found[name] = words.replace("``", "`")
    return found


def _joined(lines: Iterable[str]) -> list[str]:
    """Return lines with those that go on, which are indented deeper, joined to what they go on from."""
    joined: list[str] = []
    for line in lines:
        if line.startswith(" " * 12) and joined:
            joined[-1] += " " + line.strip()
        elif line.strip():
            joined.append(line.strip())
    return joined
