"""Where the ``nixl`` package lies that stands in for NVIDIA's, and the environment in which programs find it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def shim_path() -> Path:
    """Return the directory that holds ``nixl`` and nothing else."""
    return Path(__file__).with_name("shim")


def environment_as_nixl(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment (default: this process's) in which Python programs and their children import ours."""
    variables = dict(os.environ if environment is None else environment)
    before = [path for path in variables.get("PYTHONPATH", "").split(os.pathsep) if path != str(shim_path())]
    variables["PYTHONPATH"] = os.pathsep.join([str(shim_path()), *filter(None, before)])
    return variables
