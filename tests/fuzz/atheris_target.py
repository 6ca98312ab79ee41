"""One format under atheris, by coverage: ``python -m tests.fuzz.atheris_target FORMAT [CORPUS] [-runs=…]``.

Needs ``pip install --group fuzz``. What follows the format goes to libFuzzer. The corpus is ``build/fuzz/FORMAT``
unless one is given; the seeds go there first. Half of the mutations are our own, which know about lengths.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["trunkline"]):
    from tests.fuzz.target import try_bytes
    from tests.fuzz.targets import TARGETS

from tests.fuzz.mutation import mutate

LIMITS = ("-max_len=32768", "-timeout=20", "-rss_limit_mb=1024", "-malloc_limit_mb=256")


def main(name: str, *options: str) -> None:
    logging.disable()
    target = TARGETS[name]

    def mutate_more(data: bytes, max_size: int, seed: int) -> bytes:
        chance = Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return mutate(data, chance.choice(target.seeds), chance)[:max_size]

    given = [option for option in options if not option.startswith("-")]
    corpus = Path(given[0] if given else f"build/fuzz/{name}")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [sys.argv[0], *LIMITS, *options, *([] if given else [str(corpus)])],
        lambda data: try_bytes(target, data),
        custom_mutator=mutate_more,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
