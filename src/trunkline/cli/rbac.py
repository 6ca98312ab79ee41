"""``trunkline rbac``: the least rights that agents and others need in etcd."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.option import Namespace  # noqa: TC001 - typer reads the annotations
from trunkline.metadata.key import DEFAULT_NAMESPACE, places
from trunkline.metadata.role import NAMED_ROLES, Role, permissions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trunkline.metadata.role import Permission


def rbac(
    roles: Annotated[
        list[Role],
        typer.Argument(metavar="ROLE...", help="agent, observer, operator, or nixl (for agents of NIXL's own)."),
    ],
    *,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Which names an agent or nixl may have; decode-* (in quotes) for all that start so; may be repeated. "
            "Without it each may write what the others published.",
        ),
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option("--user", metavar="USER", help="Who gets the roles; may be repeated.")
    ] = None,
    namespace: Namespace = None,
) -> None:
    """Print the etcdctl commands that make roles with the least rights under a namespace.

    Nothing is sent. The commands go to standard output, so that `| sh -e` runs them; what to know beforehand goes to
    standard error. They need etcd's root user (ETCDCTL_USER) and endpoints (ETCDCTL_ENDPOINTS).
    """
    if name and not NAMED_ROLES.intersection(roles):
        raise typer.BadParameter("only the roles agent and nixl are bound to names", param_hint="--name")
    where = namespace or DEFAULT_NAMESPACE
    lines = [
        line
        for role in dict.fromkeys(roles)
        for line in commands(role, where, (name or ()) if role in NAMED_ROLES else (), user or ())
    ]
    for note in notes(roles, name or (), user or ()):
        typer.echo(f"# {note}", err=True)
    typer.echo("\n".join(lines))


def commands(role: Role, namespace: str, names: Sequence[str], users: Sequence[str]) -> Iterator[str]:
    """Yield the commands for one role, fit for a shell.

    Raises:
        ConfigurationError: As :func:`trunkline.metadata.role.permissions`.
    """
    title = role_name(role, namespace, names)
    entries = permissions(role, namespace, names)
    yield shlex.join(["etcdctl", "role", "add", title])
    for entry in entries:
        yield shlex.join(["etcdctl", "role", "grant-permission", *_range_options(entry), title, *_words(entry)])
    for user in users:
        yield shlex.join(["etcdctl", "user", "grant-role", user, title])


def role_name(role: Role, namespace: str, names: Sequence[str]) -> str:
    """Return what a role is called in etcd."""
    bound = f":{','.join(names)}" if names else ""
    return f"trunkline{places(namespace)[0]}/{role}{bound}"


def notes(roles: Sequence[Role], names: Sequence[str], users: Sequence[str]) -> Iterator[str]:
    """Yield what to know before the commands are run."""
    yield "Set ETCDCTL_ENDPOINTS and, once authentication is on, ETCDCTL_USER=root. A role that exists is an error:"
    yield "delete it first (etcdctl role delete NAME), or it keeps what it had."
    for user in users:
        yield f"If there is no such user yet: etcdctl user add {shlex.quote(user)}   (asks for a password)"
    if not names and NAMED_ROLES.intersection(roles):
        yield "Without --name each of these agents may write and delete what the others published."
    if Role.NIXL in roles:
        yield "NIXL 1.5.1 can't authenticate by itself; the page on security says how it gets there all the same."


def _range_options(entry: Permission) -> list[str]:
    return ["--prefix=true"] if entry.is_prefix else []


def _words(entry: Permission) -> list[str]:
    end = [] if entry.end is None or entry.is_prefix else [entry.end]
    return [str(entry.access), entry.key, *end]
