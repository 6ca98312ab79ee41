from __future__ import annotations

import numpy as np
import pytest

from trunkline.demo.cache import KvCache
from trunkline.demo.model import ModelShape
from trunkline.errors import VerificationError

MODEL = ModelShape(layers=3, heads=2, head_size=4)
EVERY = np.arange(5)


def filled(life: int = 1) -> KvCache:
    cache = KvCache(MODEL, 5)
    cache.fill(life)
    return cache


def test_no_two_words_are_equal() -> None:
    words = np.concatenate([filled(1)._words.ravel(), filled(2)._words.ravel()])
    assert len(np.unique(words)) == len(words) == 2 * 5 * MODEL.block_bytes // 8


def test_what_was_filled_is_verified() -> None:
    filled().verify(EVERY, of=5, life=1)


def test_shuffled_blocks_are_verified_as_such() -> None:
    theirs, ours = filled(), KvCache(MODEL, 3)
    chosen = np.array([4, 0, 2])
    ours._words[:] = theirs._words[:, chosen]
    ours.verify(chosen, of=5, life=1)
    with pytest.raises(VerificationError, match="layer 0, block 0"):
        ours.verify(np.array([0, 4, 2]), of=5, life=1)


def test_bytes_of_another_life_are_refused() -> None:
    with pytest.raises(VerificationError, match="not what prefill wrote"):
        filled(1).verify(EVERY, of=5, life=2)


def test_one_wrong_bit_is_found_anywhere() -> None:
    cache = filled()
    data = cache._words.view(np.uint8).reshape(-1)
    for position in (0, len(data) // 2 + 1, len(data) - 1):
        data[position] ^= 1
        with pytest.raises(VerificationError, match="1 words of the layer differ"):
            cache.verify(EVERY, of=5, life=1)
        data[position] ^= 1


def test_the_layers_are_typed_memory_of_the_cache() -> None:
    cache = filled()
    layers = cache.layers()
    assert list(layers) == ["layer.0", "layer.1", "layer.2"]
    assert {(layer.dtype, layer.shape) for layer in layers.values()} == {("BF16", (5, 2, 16, 2, 4))}
    assert layers["layer.1"].address - layers["layer.0"].address == 5 * MODEL.layer_block_bytes
