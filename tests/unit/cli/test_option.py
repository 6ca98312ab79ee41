from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from trunkline.cli.main import app
from trunkline.cli.option import parse_attributes


def test_pairs_become_attributes() -> None:
    assert parse_attributes(["role=decode", "a=b=c", "empty="], "-a") == {"role": "decode", "a": "b=c", "empty": ""}
    assert parse_attributes([], "-a") == {}


@pytest.mark.parametrize(
    ("pairs", "flaw"),
    [
        (["role"], "'role' is not of the form key=value"),
        (["=x"], "not of the form"),
        (["a=1", "a=1"], "gives 'a' a second time"),
        (["k" * 65 + "=x"], "a key of 65 characters, more than 64"),
        (["k=" + "x" * 256], "a value of 256 characters, more than 255"),
        (["k=\udcff"], "is not UTF-8"),
        ([f"{number}=x" for number in range(33)], "33 attributes, more than 32"),
    ],
)
def test_what_can_not_be_an_attribute_is_refused_before_anything_starts(pairs: list[str], flaw: str) -> None:
    with pytest.raises(typer.BadParameter, match=flaw):
        parse_attributes(pairs, "-a")
    words = [word for pair in pairs for word in ("-a", pair)]
    assert CliRunner().invoke(app, ["offer", "/nowhere", "--name", "x", *words]).exit_code == 2
    words = [word for pair in pairs for word in ("-l", pair)]
    assert CliRunner().invoke(app, ["wait", *words, "--store", "memory://x"]).exit_code == 2


def test_the_longest_are_taken() -> None:
    longest = [f"{number:064}={'x' * 255}" for number in range(32)]
    assert len(parse_attributes(longest, "-a")) == 32


@pytest.mark.parametrize("seconds", ["0", "1.9", "86401", "nan", "inf", "soon", "-3"])
@pytest.mark.parametrize("command", [["offer", "/nowhere", "--name", "x"], ["take", "x", "-o", "/nowhere/x"], ["demo"]])
def test_a_ttl_that_no_lease_can_have_is_bad_usage(
    command: list[str], seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = CliRunner().invoke(app, [*command, "--ttl", seconds])
    assert result.exit_code == 2
    assert "--ttl" in result.stderr
    monkeypatch.setenv("TRUNKLINE_SESSION_TTL", seconds)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "TRUNKLINE_SESSION_TTL" in result.stderr


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1e300", "soon"])
@pytest.mark.parametrize("command", [["take", "x", "-o", "/nowhere/x"], ["wait"]])
def test_a_time_that_can_not_be_waited_is_bad_usage(command: list[str], seconds: str) -> None:
    result = CliRunner().invoke(app, [*command, "--timeout", seconds])
    assert result.exit_code == 2
    assert "--timeout" in result.stderr or "seconds to wait" in result.stderr
