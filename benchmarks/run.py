"""How a run is made: which sides take part, how many rounds, and the etcd between them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.figure import Figure, Measurement
from benchmarks.nixl import Nixl, NixlCrowd
from benchmarks.ours import OurCrowd, Ours
from benchmarks.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchmarks.participant import Crowd, Participant

PARTICIPANTS: dict[str, type[Participant]] = {"ours": Ours, "nixl": Nixl}
CROWDS: dict[str, type[Crowd]] = {"ours": OurCrowd, "nixl": NixlCrowd}


class Pair(NamedTuple):
    """Two agents of one side, each in its own process."""

    a: Process
    b: Process


@dataclass(frozen=True, slots=True)
class Run:
    """What all topics share.

    Attributes:
        rounds: How often each figure is measured on each side.
        effort: The factor for repetitions within a round.
        has_nixl: Whether NIXL is measured too.
        store: URL of an etcd that only this run uses.
    """

    rounds: int
    effort: float
    has_nixl: bool
    store: str

    def figures(self, measure: Callable[[Run, str], Iterable[Measurement]]) -> Iterable[Figure]:
        """Have a topic measured by each side in turn, as often as there are rounds.

        Only one side's processes exist at a time: a NIXL agent's idle threads take a good part of a processor. The
        side that went last goes first in the next round.
        """
        figures: dict[str, Figure] = {}
        sides = ["ours", "nixl"] if self.has_nixl else ["ours"]
        for _ in range(self.rounds):
            for side in sides:
                for name, unit, value, goal in measure(self, side):
                    figure = figures.setdefault(name, Figure(name, unit, goal))
                    (figure.ours if side == "ours" else figure.nixl).append(value)
            sides.reverse()
        return figures.values()

    def repeat(self, count: int) -> int:
        """Return how often to do within a round what is done ``count`` times in a full run."""
        return max(3, round(count * self.effort))


@contextlib.contextmanager
def open_pair(side: str, *, store: str | None = None) -> Iterator[Pair]:
    """Start two agents, ``<side>-a`` and ``<side>-b``."""
    participant = PARTICIPANTS[side]
    with Process(participant, f"{side}-a", store) as a, Process(participant, f"{side}-b", store) as b:
        yield Pair(a, b)
