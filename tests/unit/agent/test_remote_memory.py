"""A peer's memory by label, against a plain model of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trunkline.agent.remote_memory import RemoteMemory
from trunkline.errors import MetadataDecodeError, MetadataMismatchError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.model import RemoteKeys, SectionMetadata
from trunkline.transfer.target import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.backend.contract import Slots

Row = tuple[int, int, int]
Place = tuple[str, MemoryKind]
Offer = dict[Place, list[tuple[Row, bytes]]]

DRAM, VRAM = MemoryKind.DRAM, MemoryKind.VRAM
BAD = b"bad"


class Link:
    """Gives out slots as a backend does: freed ones first; refuses to unload what is not loaded."""

    obstacle: str | None = None
    transports: tuple[str, ...] = ()
    failure: str | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.loaded: dict[int, tuple[Row, bytes]] = {}
        self.calls: list[str] = []

    def load_segments(self, kind: MemoryKind, segments: NDArray[np.uint64], keys: RemoteKeys) -> Slots:
        assert len(segments) == len(keys) > 0
        if BAD in list(keys):
            raise MetadataDecodeError("bad key")
        slots = [slot for slot in range(1000) if slot not in self.loaded][: len(segments)]
        rows = [(row[0], row[1], row[2]) for row in segments.tolist()]
        self.loaded.update(zip(slots, zip(rows, keys, strict=True), strict=True))
        self.calls.append(f"load {len(slots)}")
        return np.array(slots, np.int32)

    def unload_segments(self, slots: Slots) -> None:
        assert len(slots)
        for slot in slots.tolist():
            del self.loaded[slot]
        self.calls.append(f"unload {len(slots)}")

    def connect(self, timeout: float) -> None: ...

    def abort(self, reason: str) -> None: ...

    def close(self) -> None: ...


def sections(offer: Offer) -> list[SectionMetadata]:
    return [
        SectionMetadata(*place, np.array([row for row, _ in rows], np.uint64), RemoteKeys.of([key for _, key in rows]))
        for place, rows in offer.items()
    ]


def slots_of(target: Target, place: Place) -> dict[Row, int]:
    table = target.section.lookup(*place)
    rows = [(row[0], row[1], row[2]) for row in table.segments.tolist()]
    assert len(set(rows)) == len(rows)
    return dict(zip(rows, table.slots.tolist(), strict=True))


class Machine(RuleBasedStateMachine):
    """Loads and drops labels; the model is a dictionary of what each label says."""

    places = st.sampled_from([("A", DRAM), ("A", VRAM), ("B", DRAM), ("C", DRAM)])  # to C there is no link
    keys = st.sampled_from([b"", b"k", b"k", b"k", b"kk"]) | st.just(BAD)
    rows = st.tuples(st.integers(0, 3), st.integers(1, 2), st.integers(0, 1))
    offers = st.dictionaries(places, st.lists(st.tuples(rows, keys), min_size=1, max_size=5), max_size=3)
    labels = st.sampled_from(["metadata", "x", "y"])

    def __init__(self) -> None:
        super().__init__()
        self.links = {"A": Link("A"), "B": Link("B")}
        self.target = Target("prefill-0", dict(self.links))
        self.memory = RemoteMemory(self.target)
        self.model: dict[str, dict[Place, dict[Row, bytes]]] = {}
        self.before: dict[Place, dict[Row, tuple[int, bytes]]] = {}
        self.former: dict[Place, dict[Row, None]] = {}

    @rule(label=labels, offer=offers)
    def load(self, label: str, offer: Offer) -> None:
        linked = {place: rows for place, rows in offer.items() if place[0] in self.links}
        others = [self.union(self.model, place, label) for place in linked]
        clashes = any(
            any({**dict(rows), **other}[row] != key for row, key in rows)
            for rows, other in zip(linked.values(), others, strict=True)
        )
        if clashes or any(key == BAD for rows in linked.values() for _, key in rows):
            calls = [list(link.calls) for link in self.links.values()]
            with pytest.raises(MetadataMismatchError if clashes else MetadataDecodeError):
                self.memory.load(label, sections(offer))
            if clashes:
                assert [link.calls for link in self.links.values()] == calls
        else:
            self.memory.load(label, sections(offer))
            self.model[label] = {place: dict(rows) for place, rows in linked.items()}

    @rule(label=labels)
    def drop(self, label: str) -> None:
        self.memory.drop(label)
        self.model.pop(label, None)

    @rule(label=labels)
    def load_again(self, label: str) -> None:
        calls = [list(link.calls) for link in self.links.values()]
        if label in self.model:
            self.memory.load(label, sections({place: list(r.items()) for place, r in self.model[label].items()}))
        assert [link.calls for link in self.links.values()] == calls

    @invariant()
    def the_section_is_the_union(self) -> None:
        assert set(self.memory.labels) == set(self.model)
        for name, link in self.links.items():
            used: set[int] = set()
            for kind in (DRAM, VRAM):
                place = (name, kind)
                union, slots = self.union(self.model, place), slots_of(self.target, place)
                assert slots.keys() == union.keys()
                assert all(link.loaded[slot] == (row, union[row]) for row, slot in slots.items())
                used |= set(slots.values())
                before = self.before.get(place, {})
                kept = [row for row in union if row in before and before[row][1] == union[row]]
                assert all(before[row][0] == slots[row] for row in kept)
                self.before[place] = {row: (slots[row], union[row]) for row in union}
                former = self.former.setdefault(place, {})
                former.update(dict.fromkeys(row for row in before if row not in union))
                for row in union:
                    former.pop(row, None)
                assert {tuple(row) for row in self.target.former(*place).tolist()} == former.keys()
                assert len(self.target.former(*place)) == len(former)
            assert used == link.loaded.keys()

    @staticmethod
    def union(model: dict[str, dict[Place, dict[Row, bytes]]], place: Place, without: str = "") -> dict[Row, bytes]:
        return {
            row: key for label, said in model.items() if label != without for row, key in said.get(place, {}).items()
        }


TestAgainstTheModel = Machine.TestCase
TestAgainstTheModel.settings = settings(deadline=None, max_examples=150, stateful_step_count=20)


def memory_of(*labels: tuple[str, list[tuple[Row, bytes]]]) -> tuple[RemoteMemory, Target, Link]:
    link = Link("UCX")
    target = Target("prefill-0", {"UCX": link})
    memory = RemoteMemory(target)
    for label, rows in labels:
        memory.load(label, sections({("UCX", DRAM): rows}))
    return memory, target, link


def test_new_segments_are_loaded_before_old_ones_go() -> None:
    memory, target, link = memory_of(("metadata", [((0, 8, 0), b"k"), ((8, 8, 0), b"k")]))
    memory.load("metadata", sections({("UCX", DRAM): [((8, 8, 0), b"k"), ((16, 8, 0), b"k")]}))
    assert link.calls == ["load 2", "load 1", "unload 1"]
    assert slots_of(target, ("UCX", DRAM)) == {(8, 8, 0): 1, (16, 8, 0): 2}


def test_a_range_under_a_new_key_is_loaded_anew_and_not_gone() -> None:
    memory, target, link = memory_of(("metadata", [((0, 8, 0), b"k")]))
    memory.load("metadata", sections({("UCX", DRAM): [((0, 8, 0), b"other")]}))
    assert link.loaded == {1: ((0, 8, 0), b"other")}
    assert slots_of(target, ("UCX", DRAM)) == {(0, 8, 0): 1}
    assert len(target.former("UCX", DRAM)) == 0


def test_two_labels_share_a_segment_until_the_last_goes() -> None:
    rows = [((0, 8, 0), b"k")]
    memory, target, link = memory_of(("x", rows), ("y", rows))
    assert link.calls == ["load 1"]
    memory.drop("x")
    assert (memory.labels, link.calls) == (("y",), ["load 1"])
    memory.drop("y")
    assert (memory.labels, link.calls) == ((), ["load 1", "unload 1"])
    assert not target.section.tables


def test_two_labels_with_different_keys_for_one_range() -> None:
    memory, _, link = memory_of(("x", [((0, 8, 0), b"k")]))
    with pytest.raises(MetadataMismatchError, match=r"labels 'y' and 'x' offer 8 bytes at 0x0, device 0") as caught:
        memory.load("y", sections({("UCX", DRAM): [((8, 8, 0), b"new"), ((0, 8, 0), b"other")]}))
    assert caught.value.context["agent"] == "prefill-0"
    assert (memory.labels, link.calls) == (("x",), ["load 1"])


def test_one_section_with_a_range_twice() -> None:
    rows = [((8, 8, 0), b"k"), ((0, 8, 0), b"k"), ((8, 8, 0), b"k")]
    _, target, link = memory_of(("x", rows))
    assert link.calls == ["load 2"]
    assert slots_of(target, ("UCX", DRAM)) == {(0, 8, 0): 1, (8, 8, 0): 0}
    rows[2] = ((8, 8, 0), b"other")
    with pytest.raises(MetadataMismatchError, match="two entries of one section are for 8 bytes at 0x8"):
        memory_of(("x", rows))


def test_a_refused_key_of_one_backend_unloads_what_another_has_loaded() -> None:
    links = {"A": Link("A"), "B": Link("B")}
    memory = RemoteMemory(Target("prefill-0", dict(links)))
    with pytest.raises(MetadataDecodeError):
        memory.load("x", sections({("A", DRAM): [((0, 8, 0), b"k")], ("B", DRAM): [((0, 8, 0), BAD)]}))
    assert links["A"].calls == ["load 1", "unload 1"]
    assert memory.labels == ()


def test_a_range_is_among_those_taken_back_before_it_leaves_the_section(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, target, _ = memory_of(("x", [((0, 8, 0), b"k")]))
    seen: list[int] = []
    exchange = target.section.exchange

    def look(*arguments: object) -> None:
        seen.append(len(target.former("UCX", DRAM)))
        exchange(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(target.section, "exchange", look)
    memory.drop("x")
    assert seen == [1]


def section(*rows: tuple[Row, bytes]) -> SectionMetadata:
    return SectionMetadata(
        "UCX", DRAM, np.array([row for row, _ in rows], np.uint64), RemoteKeys.of([key for _, key in rows])
    )


def test_a_label_is_added_to() -> None:
    link = Link("UCX")
    target = Target("peer", {"UCX": link})
    memory = RemoteMemory(target)
    one, two, three = (64, 8, 0), (128, 8, 0), (256, 8, 0)
    memory.extend("all", [section((two, b"2"))])
    memory.extend("all", [section((one, b"long key"), (three, b"3"))])
    memory.extend("all", [section((two, b"2"))])
    assert link.calls == ["load 1", "load 2"]  # what was there already was not loaded again
    assert sorted(link.loaded.values()) == [(one, b"long key"), (two, b"2"), (three, b"3")]
    memory.extend("all", [section((two, b"new"))])
    assert sorted(link.loaded.values()) == [(one, b"long key"), (two, b"new"), (three, b"3")]
    memory.load("all", [section((three, b"3"))])
    assert sorted(link.loaded.values()) == [(three, b"3")]
