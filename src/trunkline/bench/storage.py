"""Files and stored objects as the far side of transfers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trunkline.bench.memory import Places, span_of
from trunkline.errors import ConfigurationError
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.file import File
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.bench.engine.contract import Engine
    from trunkline.bench.options import Options
    from trunkline.bench.plan import Step
    from trunkline.memory.file import FileMode


class Storage:
    """What blocks are written to and read from. Not for several threads at once, but for :meth:`descriptors`.

    Args:
        options: The run's.
        lanes: How many transfers may be under way.
        transfer_size: The most bytes of one.
    """

    def __init__(self, options: Options, lanes: int, transfer_size: int) -> None:
        self._options = options
        self._lanes = lanes
        self._span = span_of(transfer_size)
        self._files: list[File] = []
        self._numbers = 0  # of the objects registered so far
        self._order: NDArray[np.uint64] | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def register(self, engine: Engine) -> None:
        """Make the files and register them; objects are registered for each step.

        Raises:
            ConfigurationError: The names are not as many as the files.
            FileError: One can't be made.
        """
        options = self._options
        if options.backend == "OBJ":
            return
        size = self._lanes * self._span
        if options.randomize_location_mode == "bytealigned":
            size += options.max_block_size
        for path in self._paths():
            mode: FileMode = "r+" if path.exists() else "x+"  # one that is there may be laid out on purpose
            self._files.append(File(path, mode, size=size, direct=options.storage_enable_direct))
        rows = [(0, file.size, file.fileno()) for file in self._files]
        engine.register(DescriptorList.of(MemoryKind.FILE, rows), [str(file.path) for file in self._files])

    def begin(self, engine: Engine, step: Step) -> None:
        """Get ready for a step's sizes."""
        options = self._options
        if options.backend == "OBJ":
            count = self._lanes * step.batch_size
            rows = [(0, step.block_size, self._numbers + number) for number in range(count)]
            keys = [f"trunkline-bench/{options.benchmark_group}/{step.block_size}/{number}" for number in range(count)]
            self._numbers += count
            engine.register(DescriptorList.of(MemoryKind.OBJECT, rows), keys)
        elif options.randomize_location_mode != "none":
            generator = np.random.default_rng([options.randomize_location_mode_seed, step.number])
            slots = self._lanes * (self._span // step.block_size)
            self._order = generator.permutation(slots).astype(np.uint64) * np.uint64(step.block_size)
            if options.randomize_location_mode == "bytealigned":
                self._order += np.uint64(generator.integers(1, max(2, step.block_size)))

    def descriptors(self, lane: int, step: Step) -> DescriptorList:
        """Return where a transfer's blocks lie."""
        if self._options.backend == "OBJ":
            first = self._numbers - (self._lanes - lane) * step.batch_size
            return DescriptorList.of(
                MemoryKind.OBJECT, [(0, step.block_size, first + number) for number in range(step.batch_size)]
            )
        places = Places([0] * len(self._files), [file.fileno() for file in self._files], self._span, MemoryKind.FILE)
        found = places.descriptors(lane, step.block_size, step.batch_size)
        if self._order is None:
            return found
        rows = found.rows.copy()
        slots = self._span // step.block_size
        within = np.arange(step.batch_size) // len(self._files)
        rows[:, 0] = self._order[lane * slots + within]
        return DescriptorList.of(MemoryKind.FILE, rows)

    def close(self) -> None:
        """Close the files; those in a temporary directory go with it. Idempotent."""
        for file in self._files:
            file.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _paths(self) -> list[Path]:
        options = self._options
        if not options.filepath:
            self._temporary = tempfile.TemporaryDirectory(prefix="trunkline-bench-")
            return [Path(self._temporary.name, name) for name in self._names()]
        return [Path(options.filepath, name) for name in self._names()]

    def _names(self) -> list[str]:
        options = self._options
        names = [name for name in options.filenames.split(",") if name]
        if len({*names}) < len(names):
            raise ConfigurationError(f"--filenames {options.filenames} names a file twice: give each of them once")
        if names and len(names) != options.num_files:
            raise ConfigurationError(
                f"--filenames names {len(names)} files and --num-files says {options.num_files}: make them agree"
            )
        return names or [f"trunkline-bench-{number}" for number in range(options.num_files)]
