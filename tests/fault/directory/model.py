"""What must be true after faults: who is alive with which publication, and what a watch may tell."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass
class Holder:
    """Who holds a name.

    Attributes:
        incarnation: Which run of the agent.
        value: What it published last; empty for nothing.
    """

    incarnation: str
    value: str = ""


@dataclass
class Model:
    """The agents that live, whatever the store says for the moment."""

    holders: dict[str, Holder] = field(default_factory=dict)

    def opened(self, name: str, incarnation: str) -> None:
        """Somebody claimed a name; who had it before has lost it."""
        self.holders[name] = Holder(incarnation)

    def published(self, name: str, value: str) -> None:
        """A publication was made, or will be made up for."""
        self.holders[name].value = value

    def ended(self, name: str) -> None:
        """The holder died, or closed."""
        self.holders.pop(name, None)

    @property
    def listed(self) -> dict[str, str]:
        """The incarnations that a watch has to list: those that have published."""
        return {name: holder.incarnation for name, holder in self.holders.items() if holder.value}

    @property
    def contents(self) -> dict[str, str]:
        """What has to be found under each name."""
        return {name: holder.value for name, holder in self.holders.items() if holder.value}


def new_incarnation() -> str:
    """Return 32 hexadecimal digits that no other agent has."""
    return os.urandom(16).hex()


def replay(events: Iterable[list[str]]) -> dict[str, str]:
    """Return who is there by a watch's events from its beginning, and check that each follows from those before.

    Never left, suspect or updated without having joined; never joined twice without having left or been suspect in
    between; one name is one incarnation until it leaves.
    """
    present: dict[str, str] = {}
    suspects: set[str] = set()
    for number, (kind, name, incarnation, _) in enumerate(events):
        where = f"event {number}: {kind} {name}"
        if kind == "joined":
            assert name not in present or name in suspects, f"{where}, which was there"
            assert present.get(name, incarnation) == incarnation, f"{where}, another incarnation than the suspect"
            present[name] = incarnation
            suspects.discard(name)
        elif kind in {"updated", "suspect", "left"}:
            assert name in present, f"{where}, which was not there"
            assert present[name] == incarnation, f"{where}, another incarnation than joined"
            if kind == "left":
                del present[name]
                suspects.discard(name)
            elif kind == "suspect":
                assert name not in suspects, f"{where}, which was suspect"
                suspects.add(name)
    return {name: incarnation for name, incarnation in present.items() if name not in suspects}
