"""``trunkline etcd``: an etcd to try things with."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer


def etcd(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for clients; 0 for a free one.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Where its data stay; deleted at the end if not given.")] = None,
) -> None:
    """Run one etcd on loopback until Ctrl-C, and print its endpoint."""
    from trunkline.etcd.local import serve_foreground

    serve_foreground(typer.echo, port=port, data_dir=data_dir)
