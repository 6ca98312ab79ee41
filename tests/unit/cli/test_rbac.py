from __future__ import annotations

import shlex

import pytest
from typer.testing import CliRunner, Result

from trunkline.cli.main import app


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["rbac", *arguments], env={"NIXL_ETCD_NAMESPACE": None})


def test_commands_go_to_standard_output_and_all_else_does_not() -> None:
    result = run("--namespace", "/prod", "--user", "eva", "agent", "observer", "agent")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "etcdctl role add trunkline/prod/agent",
        "etcdctl role grant-permission --prefix=true trunkline/prod/agent readwrite /prod/",
        "etcdctl user grant-role eva trunkline/prod/agent",
        "etcdctl role add trunkline/prod/observer",
        "etcdctl role grant-permission --prefix=true trunkline/prod/observer read /prod/",
        "etcdctl user grant-role eva trunkline/prod/observer",
    ]
    notes = result.stderr.splitlines()
    assert all(note.startswith("# ") for note in notes)
    assert any("etcdctl user add eva" in note for note in notes)
    assert any("Without --name" in note for note in notes)


def test_names_bind_the_roles_that_have_them() -> None:
    result = run("--namespace", "/prod", "--name", "p-*", "agent", "observer")
    lines = [shlex.split(line) for line in result.stdout.splitlines()]
    assert ["etcdctl", "role", "add", "trunkline/prod/agent:p-*"] in lines
    assert ["etcdctl", "role", "add", "trunkline/prod/observer"] in lines
    assert "Without --name" not in result.stderr


def test_what_a_shell_would_take_apart_is_quoted() -> None:
    result = run("--namespace", "/my $(ns)", "--user", "e;va", "--name", "a b*", "agent")
    for line in result.stdout.splitlines():
        words = shlex.split(line)
        assert words[0] == "etcdctl"
        assert not {"$(ns)", "b*", "va"} & set(words)
    assert "etcdctl user add 'e;va'" in result.stderr


def test_the_default_namespace_has_two_places() -> None:
    lines = run("nixl").stdout.splitlines()
    assert [shlex.split(line)[-2:] for line in lines[1:]] == [
        ["/nixl/agents/", "/nixl/agents/."],
        ["/nixl/agents//", "/nixl/agents//."],
        ["/nixl/agents///", "/nixl/agents0"],
    ]
    assert run("--namespace", "/nixl/agents/", "nixl").stdout.splitlines() == lines
    assert "can't authenticate" in run("nixl").stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), 2),
        (("king",), 2),
        (("--name", "a", "observer"), 2),
        (("--name", "*", "agent"), 1),
        (("--namespace", "x", "agent"), 1),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], status: int) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    assert not result.stdout
