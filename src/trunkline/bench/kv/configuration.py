"""What a run of a KV-cache workload looks like: splits, lengths, pages; also from KVBench's YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import msgspec

from trunkline.bench.kv.access import Access
from trunkline.bench.kv.document import read_mapping, refuse
from trunkline.bench.kv.plan import CachePlan
from trunkline.bench.kv.split import Split

if TYPE_CHECKING:
    from pathlib import Path

    from trunkline.bench.kv.model import ModelShape

_KEYS = {
    "strategy": {"tp_size": "tp", "pp_size": "pp", "kvcache_quant_mode": "precision"},
    "runtime": {"isl": "isl", "osl": "osl", "num_requests": "num_requests"},
    "system": {"page_size": "page_size", "access_pattern": "access_pattern"},
}
"""KVBench's sections and keys, and the fields of RunShape."""
_PASSED_OVER = {"model_quant_mode", "hardware", "backend", "source", "destination", "batch_size"}


class RunShape(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a workload.

    Attributes:
        tp: Tensor parallelism of the prefill ranks.
        pp: Their pipeline parallelism.
        decode_tp: That of the decode ranks; None: as the prefill ranks.
        decode_pp: That of the decode ranks; None: as the prefill ranks.
        isl: Tokens of the input, or a distribution of them: see draw_lengths.
        osl: Tokens of the output, the same.
        num_requests: How many requests.
        page_size: Tokens of a page.
        access_pattern: ``block`` or ``layer``: see plan.Access.
        precision: Of the cache's elements; None: the model's.
    """

    tp: int = 1
    pp: int = 1
    decode_tp: int | None = None
    decode_pp: int | None = None
    isl: str = "4096"
    osl: str = "512"
    num_requests: int = 10
    page_size: int = 16
    access_pattern: Access = "layer"
    precision: str | None = None

    def plan(self, model: ModelShape, *, pages: int = 1) -> CachePlan:
        """Return how the model's caches are moved.

        Raises:
            ConfigurationError: The settings don't fit the model.
        """
        shape = model if self.precision is None else model.with_precision(self.precision)
        return CachePlan(
            shape,
            Split(self.tp, self.pp),
            Split(self.decode_tp or self.tp, self.decode_pp or self.pp),
            page_size=self.page_size,
            access=self.access_pattern,
            pages=pages,
        )


def read_run_shape(path: Path) -> dict[str, Any]:
    """Return the fields of RunShape that KVBench's YAML of a run sets.

    Raises:
        ConfigurationError: The file can't be read, or has what KVBench's don't have.
    """
    fields: dict[str, Any] = {}
    for section, values in read_mapping(path).items():
        if section not in _KEYS or not isinstance(values, dict):
            refuse(path, f"has {section!r} at its top; there may be mappings {', '.join(_KEYS)}")
        for key, value in values.items():
            if key in _PASSED_OVER or value is None:
                continue
            if key not in _KEYS[section]:
                refuse(path, f"has {key!r} in {section}; there may be {', '.join(_KEYS[section])}")
            fields[_KEYS[section][key]] = _checked(_KEYS[section][key], value, path)
    return fields


def _checked(field: str, value: object, path: Path) -> object:
    if field in {"isl", "osl"}:
        return str(value)
    if field == "precision":
        return str(value)
    if field == "access_pattern":
        if value not in get_args(Access):
            refuse(path, f"has {value!r} as {field}; it must be {' or '.join(get_args(Access))}")
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(path, f"has {value!r} as {field}; it must be a number")
    return value
