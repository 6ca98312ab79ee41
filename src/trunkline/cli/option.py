"""The options that several commands have."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

DAY = 86_400


def _check_seconds(seconds: float | None) -> float | None:
    """Refuse what can't be waited for, which the range of an option lets through: not a number, or for ever."""
    if seconds is not None and not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise typer.BadParameter(f"{seconds} is no number of seconds to wait for")
    return seconds


Store = Annotated[
    str | None,
    typer.Option(
        envvar="NIXL_ETCD_ENDPOINTS",
        metavar="URL",
        help="Where agents find each other, as etcd://host:2379; without it an etcd of this machine and user.",
    ),
]
Credentials = Annotated[
    Path | None,
    typer.Option(
        "--credentials",
        metavar="FILE",
        help="TOML file with user and password, ca, cert and key for the store; else "
        "TRUNKLINE_STORE_CREDENTIALS, else ETCDCTL_USER, ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY.",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        envvar="NIXL_ETCD_NAMESPACE", metavar="PREFIX", help="Key prefix of the deployment; default /nixl/agents."
    ),
]
Pattern = Annotated[str, typer.Argument(metavar="NAME-PATTERN", help="Which names: a glob pattern, in quotes.")]
Selector = Annotated[
    list[str] | None,
    typer.Option("--selector", "-l", metavar="KEY=VALUE", help="An attribute they must have; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
GivenStore = Annotated[
    str | None,
    typer.Option(
        envvar="NIXL_ETCD_ENDPOINTS",
        metavar="URL",
        help="Where agents find each other, as etcd://host:2379; without it the etcd of this machine and user, "
        "if one runs.",
    ),
]
StoreTimeout = Annotated[
    float,
    typer.Option(min=0, metavar="SECONDS", callback=_check_seconds, help="How long the store may take to answer."),
]
Devices = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Network interfaces that UCX may use, as lo or mlx5_0:1; default its choice."),
]
Ttl = Annotated[
    float | None,
    typer.Option(
        envvar="TRUNKLINE_SESSION_TTL",
        min=2,
        max=DAY,
        metavar="SECONDS",
        callback=_check_seconds,
        help="When others see the name vanish if this process dies; default 30.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        callback=_check_seconds,
        help="How long to wait for what is not there yet.",
    ),
]


def parse_attributes(pairs: Iterable[str], option: str) -> dict[str, str]:
    """Return what ``key=value`` arguments say.

    Args:
        pairs: The arguments; a value may hold more of the signs, or be empty.
        option: Which option they were given to, for the message.

    Raises:
        typer.BadParameter: One is not a pair, a key is given twice, or an agent can't have such attributes.
    """
    from trunkline.metadata.presence import MAX_ATTRIBUTE_KEY, MAX_ATTRIBUTE_VALUE, MAX_ATTRIBUTES

    found: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        flaw = None
        if not sign or not key:
            flaw = "is not of the form key=value"
        elif key in found:
            flaw = f"gives {key!r} a second time"
        elif len(key) > MAX_ATTRIBUTE_KEY:
            flaw = f"has a key of {len(key)} characters, more than {MAX_ATTRIBUTE_KEY}"
        elif len(value) > MAX_ATTRIBUTE_VALUE:
            flaw = f"has a value of {len(value)} characters, more than {MAX_ATTRIBUTE_VALUE}"
        elif any("\ud800" <= character <= "\udfff" for character in pair):  # bytes that are no UTF-8
            flaw = "is not UTF-8"
        if flaw is not None:
            raise typer.BadParameter(f"{pair[:80]!r} {flaw}", param_hint=option)
        found[key] = value
    if len(found) > MAX_ATTRIBUTES:
        raise typer.BadParameter(f"{len(found)} attributes, more than {MAX_ATTRIBUTES}", param_hint=option)
    return found
