"""The options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Store = Annotated[
    str | None,
    typer.Option(
        envvar="NIXL_ETCD_ENDPOINTS",
        metavar="URL",
        help="Where agents find each other, as etcd://host:2379; without it an etcd of this machine and user.",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        envvar="NIXL_ETCD_NAMESPACE", metavar="PREFIX", help="Key prefix of the deployment; default /nixl/agents."
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Network interfaces that UCX may use, as lo or mlx5_0:1; default its choice."),
]
Ttl = Annotated[
    float | None,
    typer.Option(min=2, metavar="SECONDS", help="When others see the name vanish if this process dies; default 30."),
]
