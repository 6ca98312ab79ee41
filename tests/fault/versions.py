"""Which etcds the fault tests run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.testing.etcd import etcd_binaries

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet


def every_etcd() -> list[ParameterSet]:
    """Return every etcd of this machine as a parameter; all but the first are for ``make soak``."""
    return [
        pytest.param(path, marks=pytest.mark.soak if number else (), id=path.parent.name)
        for number, path in enumerate(etcd_binaries())
    ]
