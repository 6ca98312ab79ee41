"""How long requests are: drawn from a distribution, or read from a trace."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from trunkline.bench.kv.document import refuse
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

MAX_REQUESTS = 1_000_000
MAX_TOKENS = 10_000_000
"""Of one request, input or output."""
MAX_LINE = 1 << 20
"""Bytes of one line of a trace."""
INPUT_COLUMNS = ("input_length", "input_tokens", "ContextTokens", "Request tokens")
"""What traces call the input's tokens: Mooncake, others, Azure, BurstGPT."""
OUTPUT_COLUMNS = ("output_length", "output_tokens", "GeneratedTokens", "Response tokens")
_LINE = msgspec.json.Decoder(dict[str, object])


class Lengths(NamedTuple):
    """Tokens of requests: of their inputs, whose cache is moved, and of their outputs."""

    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]


def draw_lengths(inputs: str, outputs: str, count: int, *, seed: int = 0) -> Lengths:
    """Return lengths of requests drawn from distributions; the same for the same arguments.

    Args:
        inputs: ``8192``, ``uniform:LEAST:MOST`` or ``lognormal:MEDIAN:SIGMA`` (of the logarithm).
        outputs: The same.
        count: How many requests.
        seed: Of the random numbers.

    Raises:
        ConfigurationError: A distribution is not one of these, or the numbers can't be.
    """
    if not 1 <= count <= MAX_REQUESTS:
        raise ConfigurationError(f"{count} requests can't be; it must be 1 to {MAX_REQUESTS:,}")
    of_inputs, of_outputs = np.random.default_rng(seed).spawn(2)
    return Lengths(_draw(inputs, count, of_inputs, least=1), _draw(outputs, count, of_outputs, least=0))


def _draw(distribution: str, count: int, random: np.random.Generator, *, least: int) -> NDArray[np.int64]:
    kind, *words = ["fixed", distribution] if ":" not in distribution else distribution.split(":")
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if not all(math.isfinite(number) for number in numbers):
        numbers = []
    match kind.strip().lower(), numbers:
        case "fixed", [tokens] if least <= tokens <= MAX_TOKENS and tokens.is_integer():
            return np.full(count, int(tokens), np.int64)
        case "uniform", [low, high] if least <= low <= high <= MAX_TOKENS and low.is_integer() and high.is_integer():
            return random.integers(int(low), int(high), count, endpoint=True)
        case "lognormal", [median, sigma] if 0 < median <= MAX_TOKENS and 0 <= sigma <= 10:
            drawn = random.lognormal(math.log(median), sigma, count)
            return np.clip(np.rint(drawn), least, MAX_TOKENS).astype(np.int64)
    raise ConfigurationError(
        f"{distribution!r} is no distribution of lengths: write TOKENS, uniform:LEAST:MOST or lognormal:MEDIAN:SIGMA, "
        f"with {least} to {MAX_TOKENS:,} tokens and a sigma of 0 to 10"
    )


def read_trace(path: Path, count: int | None = None) -> Lengths:
    """Return the lengths that a trace of requests holds, in its order.

    Args:
        path: JSON lines or CSV with a header; columns by the names of INPUT_COLUMNS and OUTPUT_COLUMNS. Others are
            passed over, as times of arrival and hashes are.
        count: How many requests to read at most; None: all, up to MAX_REQUESTS.

    Raises:
        ConfigurationError: The file can't be read, holds no request, or more than MAX_REQUESTS; or a line is no
            request: the message says which, and why.
    """
    most = MAX_REQUESTS if count is None else count
    found: list[tuple[int, int]] = []
    try:
        with path.open("rb") as file:
            is_json = file.peek(1)[:1] == b"{"
            for lengths in _json_requests(file, path) if is_json else _csv_requests(file, path):
                if len(found) == most:
                    if count is None:
                        refuse(
                            path, f"holds more than {MAX_REQUESTS:,} requests; say with --num-requests how many to read"
                        )
                    break
                found.append(lengths)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}", path=str(path)) from error
    if not found:
        refuse(path, "holds no request")
    inputs, outputs = np.asarray(found, np.int64).T
    return Lengths(inputs, outputs)


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            refuse(path, f"has more than {MAX_LINE:,} bytes in line {number}")
        try:
            yield line.decode()
        except UnicodeDecodeError:
            refuse(path, f"is no UTF-8 in line {number}")


def _json_requests(file: BinaryIO, path: Path) -> Iterator[tuple[int, int]]:
    for number, line in enumerate(_lines(file, path), 1):
        if not line.strip():
            continue
        try:
            values = _LINE.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigurationError(f"{path} has no JSON object in line {number}: {error}", path=str(path)) from error
        columns = _columns(values, path, f"line {number}")
        yield _request(values[columns[0]], values[columns[1]], path, f"line {number}")


def _csv_requests(file: BinaryIO, path: Path) -> Iterator[tuple[int, int]]:
    reader = csv.reader(_lines(file, path))
    try:
        header = [name.strip().removeprefix("\ufeff") for name in next(reader, [])]
        columns = [header.index(name) for name in _columns(header, path, "its header")]
        for row in reader:
            if not row:
                continue
            if len(row) <= max(columns):
                refuse(path, f"has {len(row)} columns in line {reader.line_num}, and {len(header)} in its header")
            yield _request(row[columns[0]], row[columns[1]], path, f"line {reader.line_num}")
    except csv.Error as error:
        raise ConfigurationError(f"{path} is no CSV in line {reader.line_num}: {error}", path=str(path)) from error


def _columns(names: dict[str, object] | list[str], path: Path, where: str) -> tuple[str, str]:
    """Return which of the names are the input's and the output's."""
    chosen = [next((each for each in wanted if each in names), None) for wanted in (INPUT_COLUMNS, OUTPUT_COLUMNS)]
    for column, wanted in zip(chosen, (INPUT_COLUMNS, OUTPUT_COLUMNS), strict=True):
        if column is None:
            refuse(path, f"has none of the columns {', '.join(wanted)} in {where}")
    return str(chosen[0]), str(chosen[1])


def _request(tokens_in: object, tokens_out: object, path: Path, where: str) -> tuple[int, int]:
    found = []
    for value, what, least in ((tokens_in, "input", 1), (tokens_out, "output", 0)):
        try:
            tokens = float(value) if isinstance(value, (int, float, str)) else math.nan
        except (ValueError, OverflowError):
            tokens = math.nan
        if not (least <= tokens <= MAX_TOKENS and tokens.is_integer()):
            refuse(path, f"has {str(value)[:40]!r} {what} tokens in {where}; it must be {least} to {MAX_TOKENS:,}")
        found.append(int(tokens))
    return found[0], found[1]
