from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, MemoryKind, Registration
from trunkline.agent.local_memory import LocalMemory
from trunkline.backend.plugins.loopback import LoopbackBackend
from trunkline.errors import (
    ConfigurationError,
    MemoryRegistrationError,
    NotRegisteredError,
    UnsupportedBufferError,
)
from trunkline.memory.section import Section
from trunkline.testing.stepped import SteppedBackend

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from trunkline.backend.contract import Slots
    from trunkline.metadata.model import AgentMetadata

DRAM = MemoryKind.DRAM


class Stubborn(LoopbackBackend):
    """Refuses to register."""

    name = "STUBBORN"

    def register(self, kind: MemoryKind, segments: NDArray[np.uint64], names: Sequence[str] = ()) -> Slots:
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


class Parts:
    """A group of two layers, a tensor, and raw segments."""

    def __init__(self, memory: LocalMemory) -> None:
        self.layers = {key: np.zeros((4, 8), np.float32) for key in ("0", "1")}
        self.flags = np.zeros(16, np.uint8)
        self.raw = np.zeros(64, np.uint8)
        at = self.raw.ctypes.data
        self.group: Any = memory.register(self.layers, name="kv", kind=None)
        self.tensor: Any = memory.register(self.flags, name="flags", kind=None)
        self.rows = DescriptorList.of(DRAM, [(at, 16, 0), (at + 32, 16, 0)])
        self.registration: Any = memory.register(self.rows, name=None, kind=None)

    @property
    def layer_starts(self) -> set[int]:
        return {layer.ctypes.data for layer in self.layers.values()}


def starts_of(metadata: AgentMetadata) -> set[int]:
    return {start for section in metadata.sections for start in section.segments[:, 0].tolist()}


def test_a_part_of_it_is_whole_registrations(memory: LocalMemory) -> None:
    parts = Parts(memory)
    flags, raw = parts.flags.ctypes.data, parts.raw.ctypes.data
    for segments, expected in [
        ([parts.tensor], {flags}),
        ([parts.tensor[3:5]], {flags}),
        (parts.tensor, {flags}),
        ([parts.group], parts.layer_starts),
        ([parts.group[[2, 0]]], parts.layer_starts),
        ([parts.group["1"]], parts.layer_starts),
        ([parts.registration, parts.tensor, parts.tensor], {flags, raw, raw + 32}),
        ([DescriptorList.of(DRAM, [(raw + 40, 8, 0)])], {raw + 32}),
        ([DescriptorList.of(DRAM, [(raw, 4, 0, 8, 2), (flags, 1, 0, 0, 1)])], {raw, flags}),
        (None, {flags, raw, raw + 32, *parts.layer_starts}),
        ([], set()),
    ]:
        metadata = memory.metadata(segments)
        assert starts_of(metadata) == expected
        assert bool(metadata.sections) == bool(expected)  # NIXL refuses an empty section
        assert metadata.connections == {"STEPPED": b"stepped"}
    assert len(memory.catalog().tensors) == 3  # of the agent, whatever the part


def test_connection_info_can_be_left_out(memory: LocalMemory) -> None:
    parts = Parts(memory)
    metadata = memory.metadata([parts.tensor], connection_info=False)
    assert (metadata.connections, len(metadata.sections)) == ({}, 1)
    assert len(memory.metadata(connection_info=False).sections[0].segments) == 5
    with pytest.raises(ConfigurationError, match="neither segments nor connection info"):
        memory.metadata([], connection_info=False)


def test_a_part_that_is_not_registered(memory: LocalMemory) -> None:
    parts = Parts(memory)
    start = parts.raw.ctypes.data
    for missing in ((start + 8, 16, 0), (start, 8, 1)):
        with pytest.raises(NotRegisteredError, match="lie in no segment that agent 'a' has registered"):
            memory.metadata([DescriptorList.of(DRAM, [(start, 8, 0), missing])])
    memory.hide(memory.find(parts.tensor))
    with pytest.raises(NotRegisteredError, match="is not registered with agent 'a'"):
        memory.metadata([parts.group, parts.tensor])
    wrong: Any
    for wrong in (parts.flags, "kv", (start, 16, 0)):
        with pytest.raises(UnsupportedBufferError, match=r"takes what register\(\) returned"):
            memory.metadata([wrong])


def test_what_another_agent_registered_is_not_ours(memory: LocalMemory) -> None:
    ours = Parts(memory)
    backend = SteppedBackend("b")
    theirs = Parts(LocalMemory("b", {backend.name: backend}, Section()))
    assert theirs.tensor.registration == ours.tensor.registration
    for part in (theirs.tensor, theirs.group, theirs.registration):
        with pytest.raises(NotRegisteredError, match="is not registered with agent 'a'"):
            memory.find(part)
    backend.close()


def test_parts_agree_on_the_key_of_a_range_that_is_registered_twice(memory: LocalMemory) -> None:
    array = np.zeros(64, np.uint8)
    first, second = (memory.register(array, name=name, kind=None) for name in ("a", "b"))
    whole, *parts = (list(memory.metadata(each).sections[0].keys) for each in (None, first, second))
    assert len(whole) == 1
    assert parts == [whole, whole]
    memory.hide(memory.find(first))
    assert memory.metadata([second]).sections[0].segments.tolist() == [[array.ctypes.data, 64, 0]]


def test_a_part_with_a_range_twice(memory: LocalMemory) -> None:
    array = np.zeros(128, np.uint8)
    low = [memory.register(array[:64], name=name, kind=None) for name in ("a", "b")]
    memory.register(array[64:], name="high", kind=None)
    assert starts_of(memory.metadata(low)) == {array.ctypes.data}


def test_memory_that_no_peer_can_reach_is_in_no_part() -> None:
    backend = LoopbackBackend("a")
    memory = LocalMemory("a", {backend.name: backend}, Section())
    array = np.zeros(64, np.uint8)
    view = memory.register(array, name="a", kind=None)
    for part in (view, DescriptorList.of(DRAM, [(array.ctypes.data, 8, 0)])):
        assert memory.metadata([part]).sections == ()


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


def raw(*rows: tuple[int, int, int]) -> DescriptorList:
    return DescriptorList.of(DRAM, list(rows))


A, B, C = (4096, 64, 0), (8192, 64, 0), (12288, 64, 0)


def registered(memory: LocalMemory) -> list[tuple[int, ...]]:
    table = memory.section.lookup("STEPPED", DRAM)
    return [tuple(row) for row in table.segments.tolist()]


def take_back(memory: LocalMemory, *rows: tuple[int, int, int]) -> None:
    for registration in memory.carve(raw(*rows)):
        memory.hide(registration)
        memory.drop(registration)


def test_ranges_are_taken_back_whichever_call_registered_them(memory: LocalMemory) -> None:
    memory.register(raw(A, B), name=None, kind=None)
    memory.register(raw(C), name=None, kind=None)
    take_back(memory, B, C)
    assert registered(memory) == [A]
    with pytest.raises(NotRegisteredError, match="64 bytes of DRAM at 0x2000, device 0, are not a segment"):
        take_back(memory, A, B)
    assert registered(memory) == [A]
    take_back(memory, A)
    assert registered(memory) == []
    assert len(memory) == 0


def test_a_range_registered_twice_goes_once_for_each_time(memory: LocalMemory) -> None:
    memory.register(raw(A, A), name=None, kind=None)
    memory.register(raw(A), name=None, kind=None)
    before = memory.metadata().sections[0].keys[0]
    for left in (2, 1):
        take_back(memory, A)
        assert registered(memory) == [A] * left
        assert memory.metadata().sections[0].keys[0] == before  # the first registration's, which peers have
    take_back(memory, A)
    with pytest.raises(NotRegisteredError):
        take_back(memory, A)


def test_a_range_that_a_buffer_registered_is_not_taken_back_by_a_list(memory: LocalMemory) -> None:
    array = np.zeros(64, np.uint8)
    memory.register(array, name="a", kind=None)
    with pytest.raises(NotRegisteredError, match="by a descriptor list"):
        memory.carve(raw((array.ctypes.data, 64, 0)))


def test_what_was_split_off_can_be_shown_again(memory: LocalMemory) -> None:
    memory.register(raw(A, B, C), name=None, kind=None)
    (piece,) = memory.carve(raw(C, A))
    memory.hide(piece)
    assert registered(memory) == [B]
    memory.show(piece)
    assert registered(memory) == [A, B, C]
    assert {tuple(row) for row in piece.descriptors[0].rows.tolist()} == {A, C}
