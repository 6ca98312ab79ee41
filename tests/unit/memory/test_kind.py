from __future__ import annotations

from trunkline.memory.kind import MemoryKind


def test_the_values_are_those_of_nixl() -> None:
    assert [(kind.name, kind.value) for kind in MemoryKind] == [
        ("DRAM", 0),
        ("VRAM", 1),
        ("BLOCK", 2),
        ("OBJECT", 3),
        ("FILE", 4),
    ]
