from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trunkline.bench.config_file import make_options, read_options
from trunkline.bench.options import KIB, MIB, Options
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, text: str) -> Path:
    path = folder / "bench.toml"
    path.write_text(text)
    return path


def test_options_come_from_the_file_and_the_command_line_wins(tmp_path: Path) -> None:
    path = write(tmp_path, 'op_type = "read"\nnum-iter = 50\n[sizes]\nmax_block_size = "1MiB"\nrate = 5\n')
    assert make_options({"num_iter": 7, "scheme": None}, path) == Options(
        op_type="READ", num_iter=7, max_block_size=MIB, rate=5.0
    )


def test_one_size_sets_start_and_max_unless_they_are_given(tmp_path: Path) -> None:
    assert make_options({"block_size": "64K", "batch_size": 4}) == Options(
        start_block_size=64 * KIB, max_block_size=64 * KIB, start_batch_size=4, max_batch_size=4
    )
    path = write(tmp_path, "block_size = 8192\n")
    assert make_options({"max_block_size": "16K"}, path) == Options(start_block_size=8192, max_block_size=16 * KIB)


def test_a_workload_has_defaults_of_its_own() -> None:
    found = make_options({"workload": "metadata", "num_iter": 5})
    assert (found.max_batch_size, found.num_iter) == (1024, 5)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("num_iters = 3", "num_iters is no option; similar ones are num_iter"),
        ("frobnicate = 3", "frobnicate is no option; see trunkline bench --help"),
        ("num_iter = 3\n[x]\nnum-iter = 4", "sets num-iter twice"),
        ('num_iter = "3"', "num_iter = '3' must be of type int"),
        ("num_iter = true", "num_iter = True must be of type int"),
        ("num_iter = 0", "must be a number from 1 on"),
        ("rate = nan", "must be a number from 0 on"),
        ('op_type = "MOVE"', "'MOVE' is none of READ, WRITE"),
        ('max_block_size = "big"', "'big' is no size"),
        ("num_iter = ", "is not TOML"),
    ],
)
def test_what_a_file_may_not_say_is_named(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        read_options(write(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.toml can't be read: No such file"):
        read_options(tmp_path / "missing.toml")


@pytest.mark.parametrize(("given", "match"), [({"scheme": "star"}, "--scheme = 'star'"), ({"local": -1}, "--local")])
def test_what_the_command_line_may_not_say_is_named(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        make_options(given)
