"""The memory a loaded peer offers: which label of its metadata brought it, and what a new version of one changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trunkline.errors import MetadataMismatchError
from trunkline.memory.section import find_rows
from trunkline.metadata.model import SectionMetadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from trunkline.backend.contract import BackendPeer, Slots
    from trunkline.memory.kind import MemoryKind
    from trunkline.transfer.target import Target


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """What one load does to the segments of one backend and kind.

    Attributes:
        fresh: The segments to load, with their keys; None if there are none.
        stale: Slots to unload.
        gone: The ranges that are not offered any more; those of ``stale`` less those that come back under a new key.
    """

    backend: str
    kind: MemoryKind
    fresh: SectionMetadata | None
    stale: Slots
    gone: NDArray[np.uint64]


class RemoteMemory:
    """A peer's segments: the union of what the labels loaded from it say.

    A range that two labels offer under the same remote key is one segment, and stays until the last of them goes.
    The owner serialises changes; look-ups in the target's section may come from any thread meanwhile.

    Args:
        target: Whose section is kept; its links load and unload the segments.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._labels: dict[str, Mapping[tuple[str, MemoryKind], SectionMetadata]] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that are loaded, oldest first."""
        return tuple(self._labels)

    def load(self, label: str, sections: Iterable[SectionMetadata]) -> None:
        """Replace what a label offers: exactly the difference is loaded and unloaded. All or nothing.

        What is kept keeps its slot, and new segments come before old ones go, so transfers of kept memory go on.
        Sections of backends to which there is no link are passed over.

        Raises:
            MetadataMismatchError: A range stands there twice, or in another label, with different remote keys.
            MetadataDecodeError: A remote key is not what it should be.
        """
        offered = {
            (section.backend, section.kind): _distinct(section, self._target.name)
            for section in sections
            if section.backend in self._target.links
        }
        self._replace(label, offered)

    def extend(self, label: str, sections: Iterable[SectionMetadata]) -> None:
        """Add to what a label offers. A range that it offers already, under another key, gets the new one.

        Raises:
            As :meth:`load`.
        """
        merged = dict(self._labels.get(label, {}))
        for section in sections:
            key = (section.backend, section.kind)
            merged[key] = _union(merged[key], section) if key in merged else section
        self.load(label, merged.values())

    def drop(self, label: str) -> None:
        """Take back what only this label offers. No effect if it is not loaded."""
        self._replace(label, None)

    def _replace(self, label: str, offered: Mapping[tuple[str, MemoryKind], SectionMetadata] | None) -> None:
        before, now = self._labels.get(label, {}), offered or {}
        compared = (self._compare(label, key, before.get(key), now.get(key)) for key in {**before, **now})
        changes = [change for change in compared if change is not None]
        target = self._target
        for change, slots in zip(changes, self._load_fresh(changes), strict=True):
            rows = _NO_ROWS if change.fresh is None else change.fresh.segments
            # Remembered first, so that whoever misses a range in the section finds it among those taken back.
            target.remember(change.backend, change.kind, change.gone, offered=rows)
            target.section.exchange(change.backend, change.kind, change.stale, rows, slots)
        if offered is None:
            self._labels.pop(label, None)
        else:
            self._labels[label] = offered
        for change in changes:
            if len(change.stale):
                target.links[change.backend].unload_segments(change.stale)

    def _load_fresh(self, changes: list[_Change]) -> list[Slots]:
        """Load the new segments of all changes, or none, and return their slots by change."""
        loaded: list[tuple[BackendPeer, Slots]] = []
        try:
            for change in changes:
                link, section = self._target.links[change.backend], change.fresh
                slots = _NO_SLOTS
                if section is not None:
                    slots = link.load_segments(section.kind, section.segments, section.keys)
                loaded.append((link, slots))
        except BaseException:
            for link, slots in loaded:
                if len(slots):
                    link.unload_segments(slots)
            raise
        return [slots for _, slots in loaded]

    def _compare(
        self,
        label: str,
        key: tuple[str, MemoryKind],
        before: SectionMetadata | None,
        now: SectionMetadata | None,
    ) -> _Change | None:
        """Return what has to change for a label to offer ``now`` instead of ``before``, or None if nothing has to."""
        others = {name: held[key] for name, held in self._labels.items() if name != label and key in held}
        is_new = np.ones(0 if now is None else len(now.segments), bool)
        is_stale = np.ones(0 if before is None else len(before.segments), bool)
        is_gone = is_stale.copy()
        if now is not None and before is not None:
            mine, theirs, equal = _matches(now, before)
            is_new[mine[equal]] = False
            is_stale[theirs[equal]] = False
            is_gone[theirs] = False
        for name, other in others.items():
            if now is not None:
                mine, theirs, equal = _matches(now, other)
                if not equal.all():
                    row = now.segments[mine[~equal][0]]
                    raise _clash(self._target.name, row, f"labels {label!r} and {name!r} offer")
                is_new[mine] = False
            if before is not None and is_stale.any():
                elsewhere = find_rows(before.segments, other.segments) >= 0
                is_stale &= ~elsewhere
                is_gone &= ~elsewhere
        stale = _NO_SLOTS
        if before is not None and is_stale.any():
            table = self._target.section.lookup(*key)
            stale = table.slots[find_rows(before.segments[is_stale], table.segments)]
        if not is_new.any() and not len(stale):
            return None
        gone = _NO_ROWS if before is None else before.segments[is_gone]
        return _Change(*key, _pick(now, is_new), stale, gone)


_NO_ROWS = np.empty((0, 3), np.uint64)
_NO_SLOTS = np.empty(0, np.int32)


def _pick(section: SectionMetadata | None, chosen: NDArray[np.bool_]) -> SectionMetadata | None:
    """Return a section with some of its rows, or None for none of them."""
    if section is None or not chosen.any():
        return None
    if chosen.all():
        return section
    rows = np.flatnonzero(chosen)
    return SectionMetadata(section.backend, section.kind, section.segments[rows], section.keys.take(rows))


def _union(before: SectionMetadata, added: SectionMetadata) -> SectionMetadata:
    """Return a section with the rows of both; of equal ranges, the added one."""
    kept = _pick(before, find_rows(before.segments, np.unique(added.segments, axis=0)) < 0)
    if kept is None:
        return added
    return SectionMetadata(
        added.backend,
        added.kind,
        np.concatenate([kept.segments, added.segments]),
        kept.keys.join(added.keys),
    )


def _matches(
    one: SectionMetadata, other: SectionMetadata
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Return the rows of the ranges that both have, in each of them, and whether the keys are equal."""
    found = find_rows(one.segments, other.segments)
    mine = np.flatnonzero(found >= 0)
    theirs = found[mine]
    return mine, theirs, one.keys.take(mine).equal_rows(other.keys.take(theirs))


def _distinct(section: SectionMetadata, peer: str) -> SectionMetadata:
    """Return a section without repeated rows.

    Raises:
        MetadataMismatchError: Two equal rows have different keys.
    """
    address, length, device = section.segments.T
    if (address[1:] > address[:-1]).all():  # as good as always: metadata comes in order
        return section
    order = np.lexsort((length, address, device))
    ordered = section.segments[order]
    again = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1))
    if not len(again):
        return section
    equal = section.keys.take(order[again]).equal_rows(section.keys.take(order[again + 1]))
    if not equal.all():
        raise _clash(peer, ordered[again[~equal][0]], "two entries of one section are for")
    chosen = np.ones(len(order), bool)
    chosen[order[again + 1]] = False
    kept = np.flatnonzero(chosen)
    return SectionMetadata(section.backend, section.kind, section.segments[kept], section.keys.take(kept))


def _clash(peer: str, row: NDArray[np.uint64], who: str) -> MetadataMismatchError:
    address, length, device = row.tolist()
    return MetadataMismatchError(
        f"metadata of peer {peer!r}: {who} {length} bytes at {address:#x}, device {device}, "
        "with different remote keys; nothing was changed",
        agent=peer,
        address=address,
        length=length,
        device=device,
    )
