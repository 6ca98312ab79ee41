from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, MemoryKind, Registration
from trunkline.agent.local_memory import LocalMemory
from trunkline.backend.plugins.loopback import LoopbackBackend
from trunkline.errors import MemoryRegistrationError, NotRegisteredError
from trunkline.memory.section import Section
from trunkline.testing.stepped import SteppedBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from trunkline.backend.contract import Slots

DRAM = MemoryKind.DRAM


class Stubborn(LoopbackBackend):
    """Refuses to register."""

    name = "STUBBORN"

    def register(self, kind: MemoryKind, segments: NDArray[np.uint64]) -> Slots:
        raise MemoryRegistrationError("no")


@pytest.fixture
def memory() -> Iterator[LocalMemory]:
    backend = SteppedBackend("a")
    yield LocalMemory("a", {backend.name: backend}, Section())
    backend.close()


def test_metadata_and_catalog_say_what_is_registered(memory: LocalMemory) -> None:
    layers = {"0": np.zeros((4, 8), np.float32), "1": np.zeros((4, 8), np.float32)}
    memory.register(layers, name="kv", kind=None)
    memory.register(np.zeros(16, np.uint8), name="flags", kind=None)
    memory.register(np.zeros(16, np.uint8), name=None, kind=None)
    catalog = memory.catalog()
    assert [entry.name for entry in catalog.tensors] == ["kv/0", "kv/1", "flags"]
    assert catalog.groups == {"kv": ("kv/0", "kv/1")}
    (section,) = memory.metadata().sections
    assert (section.backend, section.kind, len(section.segments), len(section.keys)) == ("STEPPED", DRAM, 4, 4)
    assert layers["0"].ctypes.data in section.segments[:, 0]


def test_one_range_registered_twice_is_one_segment_to_peers(memory: LocalMemory) -> None:
    array = np.zeros(64, np.uint8)
    first = memory.register(array, name="a", kind=None)
    memory.register(array, name="b", kind=None)
    (section,) = memory.metadata().sections
    assert section.segments.tolist() == [[array.ctypes.data, 64, 0]]
    assert not isinstance(first, Registration)
    memory.hide(memory.find(first))
    assert len(memory.metadata().sections[0].segments) == 1
    assert len(memory.section.lookup("STEPPED", DRAM)) == 1


def test_a_hidden_registration_can_be_shown_again(memory: LocalMemory) -> None:
    view = memory.register(np.zeros(64, np.uint8), name="a", kind=None)
    registration = memory.find(view)
    memory.hide(registration)
    assert memory.metadata().sections == ()
    with pytest.raises(NotRegisteredError):
        memory.find(view)
    memory.show(registration)
    assert memory.find(view) is registration
    assert len(memory.metadata().sections) == 1


def test_raw_segments_have_no_name(memory: LocalMemory) -> None:
    array = np.zeros(64, np.uint8)
    rows = DescriptorList.of(DRAM, [(array.ctypes.data, 16, 0), (array.ctypes.data + 32, 16, 0)])
    registration = memory.register(rows, name=None, kind=None)
    assert isinstance(registration, Registration)
    assert registration.nbytes == 32
    assert memory.catalog().tensors == ()
    assert memory.find(registration) is registration


def test_a_backend_that_refuses_leaves_nothing_behind() -> None:
    good, bad = LoopbackBackend("a"), Stubborn("a")
    memory = LocalMemory("a", {good.name: good, bad.name: bad}, Section())
    with pytest.raises(MemoryRegistrationError, match="no"):
        memory.register(np.zeros(64, np.uint8), name="a", kind=None)
    assert len(memory) == 0
    assert good._segments == {}
    assert memory.section.tables == {}


def test_an_agent_copies_within_itself_by_loopback() -> None:
    with Agent("alone", backends=("loopback",)) as agent:
        source, destination = np.arange(64, dtype=np.uint8).reshape(8, 8), np.zeros((8, 8), np.uint8)
        one, other = agent.register(source, name="one"), agent.register(destination, name="other")
        agent.read(one[[7, 0]], into=other[[1, 2]]).wait()
        np.testing.assert_array_equal(destination[[1, 2]], source[[7, 0]])
        agent.write(one[3], to=other[3]).wait()
        np.testing.assert_array_equal(destination[3], source[3])
        agent.deregister(one)
        with pytest.raises(NotRegisteredError):
            agent.read(other[0], into=one[0])
