"""Random sequences of faults.

``TRUNKLINE_FAULT_SEED`` sets the first seed; a failure names its seed and the faults.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.fault.directory.sequence import Sequence

if TYPE_CHECKING:
    from trunkline.testing.etcd import EtcdServer

FIRST_SEED = int(os.environ.get("TRUNKLINE_FAULT_SEED", "1"))


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 3))
def test_a_sequence_of_faults(server: EtcdServer, seed: int) -> None:
    """In the end all who live see each other with what they published last, the dead are gone, and nothing is left."""
    Sequence(server, seed).run(8)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(FIRST_SEED + 3, FIRST_SEED + 53))
def test_a_long_sequence_of_faults(server: EtcdServer, seed: int) -> None:
    """As above, with more faults."""
    Sequence(server, seed).run(20)
