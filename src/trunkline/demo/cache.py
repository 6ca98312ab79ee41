"""A paged KV cache filled with a pattern by which every byte can be verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trunkline.errors import VerificationError
from trunkline.memory.typed import typed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.demo.model import ModelShape
    from trunkline.memory.buffer import Buffer

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiplying by it modulo 2^64 maps no two words to one (Knuth's multiplicative hashing)."""


class KvCache:
    """All layers of a paged KV cache in bf16.

    Args:
        model: Its shape.
        blocks: How many blocks each layer has.
    """

    def __init__(self, model: ModelShape, blocks: int) -> None:
        self.model = model
        self.blocks = blocks
        self._words = np.empty((model.layers, blocks, model.layer_block_bytes // 8), np.uint64)
        self._words.fill(0)  # a cache in use has its pages; the read should not be what brings them in

    def layers(self) -> dict[str, Buffer]:
        """Return each layer's memory by name, as ``Agent.register`` takes it."""
        shape = self.model.layer_shape(self.blocks)
        return {f"layer.{index}": typed(layer, "BF16", shape) for index, layer in enumerate(self._words)}

    def fill(self, life: int) -> None:
        """Write the pattern of prefill's first or second life: no two words of 8 bytes are equal."""
        for layer in range(self.model.layers):
            self._words[layer] = self._pattern(layer, np.arange(self.blocks), self.blocks, life)

    def verify(self, blocks: NDArray[np.int64], *, of: int, life: int) -> None:
        """Check every byte against what prefill wrote.

        Args:
            blocks: For each block here, which of prefill's it should be.
            of: How many blocks prefill's cache has.
            life: Prefill's life.

        Raises:
            VerificationError: A byte differs; says where.
        """
        for layer in range(self.model.layers):
            wrong = self._words[layer] != self._pattern(layer, blocks, of, life)
            if wrong.any():
                place, word = (int(index) for index in np.argwhere(wrong)[0])
                raise VerificationError(
                    f"layer {layer}, block {place} (prefill's {int(blocks[place])}): bytes {8 * word} to "
                    f"{8 * word + 7} are not what prefill wrote; {int(wrong.sum()):,} words of the layer differ",
                    layer=layer,
                    block=place,
                )

    def _pattern(self, layer: int, blocks: NDArray[np.int64], of: int, life: int) -> NDArray[np.uint64]:
        words = self._words.shape[2]
        first = (np.asarray(blocks, np.uint64) + np.uint64(layer * of)) * np.uint64(words)
        number: NDArray[np.uint64] = np.add.outer(first, np.arange(words, dtype=np.uint64))
        number += np.uint64(life << 48)
        number *= _MULTIPLIER
        return number
