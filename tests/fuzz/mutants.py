"""Mutants of one format in a process of its own: ``python -m tests.fuzz.mutants FORMAT SEED COUNT``.

It ends with a status other than 0 and the mutant's hexadecimal if one raises what its format does not name, or asks for
more memory than ``ROOM``; and with the stack it hangs in if some of them take longer than ``PATIENCE``.
"""

from __future__ import annotations

import faulthandler
import logging
import resource
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.fuzz.mutation import mutate
from tests.fuzz.target import Target, try_bytes
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM = 64 << 20
"""Bytes of address space beyond what the process has when it starts."""

PATIENCE = 60.0
"""Seconds for ``STRIDE`` mutants, which take a fraction of one."""

STRIDE = 1000


def mutants(target: Target, count: int, seed: int) -> Iterator[bytes]:
    """Yield the same mutants for the same seed."""
    chance = Random(seed)
    for number in range(count):
        yield mutate(target.seeds[number % len(target.seeds)], chance.choice(target.seeds), chance)


def run(target: Target, count: int, seed: int, *, is_watched: bool = False) -> int:
    """Try mutants; return how many were accepted. A process that is watched ends if it hangs."""
    accepted = 0
    for number, mutant in enumerate(mutants(target, count, seed)):
        if is_watched and number % STRIDE == 0:
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
        try:
            accepted += try_bytes(target, mutant)
        except Exception as error:
            raise AssertionError(f"{error!r} for mutant {number}: {mutant.hex()}") from error
    if is_watched:
        faulthandler.cancel_dump_traceback_later()
    return accepted


def main(name: str, seed: int, count: int) -> None:
    logging.disable()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    accepted = run(TARGETS[name], count, seed, is_watched=True)
    print(f"{name}: {accepted} of {count} mutants accepted, the others refused by name")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
