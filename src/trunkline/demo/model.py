"""Shapes of well-known models' KV caches. The figures are those of each model's ``config.json`` on Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK_TOKENS = 16
"""Tokens per block, the default of vLLM's paged KV cache."""

BF16_SIZE = 2
KEY_AND_VALUE = 2


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What decides the size of a model's KV cache.

    Attributes:
        layers: ``num_hidden_layers``.
        heads: ``num_key_value_heads``.
        head_size: ``head_dim``, or ``hidden_size`` divided by ``num_attention_heads``.
    """

    layers: int
    heads: int
    head_size: int

    def layer_shape(self, blocks: int) -> tuple[int, ...]:
        """Return the shape of one layer's cache: blocks, K and V, tokens, heads, elements of a head."""
        return (blocks, KEY_AND_VALUE, BLOCK_TOKENS, self.heads, self.head_size)

    @property
    def layer_block_bytes(self) -> int:
        """Size of one block in one layer, in bytes (bf16)."""
        return KEY_AND_VALUE * BLOCK_TOKENS * self.heads * self.head_size * BF16_SIZE

    @property
    def block_bytes(self) -> int:
        """Size of one block in all layers, in bytes."""
        return self.layers * self.layer_block_bytes


MODELS = {
    "llama-3.1-8b": ModelShape(layers=32, heads=8, head_size=128),
    "llama-3.1-70b": ModelShape(layers=80, heads=8, head_size=128),
    "mistral-7b-v0.3": ModelShape(layers=32, heads=8, head_size=128),
    "qwen2.5-7b": ModelShape(layers=28, heads=4, head_size=128),
}
