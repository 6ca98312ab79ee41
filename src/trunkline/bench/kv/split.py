"""How the ranks of one side divide a model's cache: heads by tensor, layers by pipeline parallelism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.bench.kv.model import ModelShape

MAX_RANKS = 1024


@dataclass(frozen=True, slots=True)
class Split:
    """The sizes of one side.

    Attributes:
        tensor: Ranks among which the KV heads are divided (tp).
        pipeline: Stages among which the layers are divided (pp).
    """

    tensor: int = 1
    pipeline: int = 1

    def __post_init__(self) -> None:
        if self.tensor < 1 or self.pipeline < 1 or self.ranks > MAX_RANKS:
            raise ConfigurationError(
                f"tp {self.tensor} × pp {self.pipeline} ranks can't be: both must be at least 1, and the product "
                f"at most {MAX_RANKS:,}"
            )

    @property
    def ranks(self) -> int:
        """How many there are; rank r is number r % tensor of stage r // tensor."""
        return self.tensor * self.pipeline


@dataclass(frozen=True, slots=True)
class Shares:
    """What each rank of a side holds, by rank.

    Attributes:
        first_layer: The first of its layers.
        layers: How many.
        first_head: The first of its KV heads.
        heads: How many; the same for all.
        stage: Which pipeline stage it is of.
        replica: Which copy of these heads it holds.
        replicas: How many ranks of a stage hold the same heads.
    """

    first_layer: NDArray[np.int64]
    layers: NDArray[np.int64]
    first_head: NDArray[np.int64]
    heads: int
    stage: NDArray[np.int64]
    replica: NDArray[np.int64]
    replicas: int


def divide(shape: ModelShape, split: Split) -> Shares:
    """Return what each rank holds.

    Where the stages don't divide the layers the first stages have one more. Where there are more ranks than KV
    heads, several hold the same head; what MLA keeps is held by every rank of a stage.

    Raises:
        ConfigurationError: The heads and ranks don't divide each other, or there are more stages than layers.
    """
    heads, tensor = shape.kv_heads, split.tensor
    if heads % tensor and tensor % heads:
        raise ConfigurationError(
            f"tp {tensor} does not divide the {heads} KV heads of {shape.name}, nor they it; take a tp that does"
        )
    if split.pipeline > shape.layers:
        raise ConfigurationError(
            f"pp {split.pipeline} is more than the {shape.layers} layers of {shape.name}; take a smaller one"
        )
    replicas = max(1, tensor // heads)
    stage, number = np.divmod(np.arange(split.ranks, dtype=np.int64), tensor)
    least, more = divmod(shape.layers, split.pipeline)
    return Shares(
        first_layer=stage * least + np.minimum(stage, more),
        layers=least + (stage < more),
        first_head=number // replicas * max(1, heads // tensor),
        heads=max(1, heads // tensor),
        stage=stage,
        replica=number % replicas,
        replicas=replicas,
    )
