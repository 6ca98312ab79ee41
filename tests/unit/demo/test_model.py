from __future__ import annotations

from trunkline.demo.model import MODELS


def test_a_block_of_llama_has_the_size_that_its_shape_says() -> None:
    llama = MODELS["llama-3.1-8b"]
    # K and V × 16 tokens × 8 heads × 128 elements × 2 bytes
    assert llama.layer_block_bytes == 65_536
    assert llama.block_bytes == 2 << 20
    assert llama.layer_shape(10) == (10, 2, 16, 8, 128)
