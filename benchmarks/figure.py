"""One measured figure: what the rounds of ours and of NIXL gave, and their ratio."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from typing import NamedTuple


class Measurement(NamedTuple):
    """What one round on one side gave.

    Attributes:
        name: What was measured.
        unit: Of the value.
        value: The median within the round, where it was measured repeatedly.
        goal: What is aimed for, as text; empty for no goal.
    """

    name: str
    unit: str
    value: float
    goal: str = ""


@dataclass(slots=True)
class Figure:
    """A quantity measured once a round.

    Attributes:
        name: What was measured.
        unit: Of the values.
        goal: What is aimed for.
        ours: Trunkline's value in each round.
        nixl: NIXL's in the same rounds; empty where it was not measured.
    """

    name: str
    unit: str
    goal: str
    ours: list[float] = field(default_factory=list)
    nixl: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Median of ours over median of NIXL's."""
        return statistics.median(self.ours) / statistics.median(self.nixl) if self.nixl else None

    @property
    def pairwise(self) -> list[float]:
        """The ratio of each round."""
        return [ours / nixl for ours, nixl in zip(self.ours, self.nixl, strict=True)] if self.nixl else []

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest ratio of a round; without NIXL, of our values."""
        values = self.pairwise or self.ours
        return min(values), max(values)

    def json(self) -> str:
        """Return it as one line."""
        return json.dumps(
            {
                "name": self.name,
                "unit": self.unit,
                "ours": _rounded(statistics.median(self.ours)),
                "nixl": _rounded(statistics.median(self.nixl)) if self.nixl else None,
                "ratio": _rounded(self.ratio),
                "pairwise_ratio": _rounded(statistics.median(self.pairwise)) if self.nixl else None,
                "spread": [_rounded(end) for end in self.spread],
                "rounds": len(self.ours),
                "goal": self.goal,
            },
            ensure_ascii=False,
        )

    def row(self) -> str:
        """Return it as a line of the table that :func:`heading` begins."""
        nixl = f"{statistics.median(self.nixl):12,.3f}" if self.nixl else f"{'':12}"
        ratio = f"{self.ratio:8.3f}" if self.ratio is not None else f"{'':8}"
        low, high = self.spread
        return (
            f"{self.name:48}{statistics.median(self.ours):12,.3f}{nixl} {self.unit:5}{ratio}  "
            f"{f'{low:,.3f} … {high:,.3f}':22}{self.goal}"
        )


def heading() -> str:
    """Return the table's first line."""
    return f"{'':48}{'ours':>12}{'NIXL':>12} {'unit':5}{'ratio':>8}  {'spread of rounds':22}goal"


def _rounded(value: float | None) -> float | None:
    """Return it with four significant digits."""
    return None if value is None else float(f"{value:.4g}")
