"""The part of an agent that has to do with its backends: which are open, opening more, asking them."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Any

from trunkline.agent.explanation import report_backends
from trunkline.agent.opening import storage_for
from trunkline.backend.contract import QueryableBackend
from trunkline.backend.registry import canonical_name, create_backend
from trunkline.errors import BackendUnavailableError, ConfigurationError, MemoryRegistrationError, NoBackendError
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence

    from trunkline.agent.explanation import BackendReport
    from trunkline.agent.local_memory import LocalMemory
    from trunkline.transfer.engine import Engine


class Backends(ABC):
    """What ``Agent`` inherits. Any thread may call any method."""

    name: str
    engine: Engine
    _lock: threading.RLock
    _memory: LocalMemory
    _opens_storage: bool
    """Whether it opens by itself what files and objects need."""
    _kinds: frozenset[MemoryKind]
    """The kinds of memory for which that was done."""

    def create_backend(self, name: str, **options: Any) -> None:
        """Open one more backend, the last in order of preference.

        What was registered before is registered with it, too. Peers that were loaded before are reached by it once
        they are loaded again, and those that have loaded this agent once it has published again.

        Args:
            name: The backend's name.
            **options: Its own settings.

        Raises:
            ConfigurationError: It has no such option, there is no such backend, or the agent has it already.
            BackendUnavailableError: It can't be used here.
            MemoryRegistrationError: It refuses memory that was registered before; it is not opened then.
        """
        self.engine.check_open()
        with self._lock:
            wanted, opened = canonical_name(name), self.engine.backends
            backend = None if wanted in opened else create_backend(name, self.name, **options)
            if backend is None or backend.name in opened:
                if backend is not None:
                    backend.close()
                raise ConfigurationError(f"agent {self.name!r} has a backend {wanted!r} already", backend=name)
            try:
                self._memory.adopt(backend)
                self.engine.add_backend(backend)
            except BaseException:
                backend.close()
                raise

    def backends(self) -> Sequence[BackendReport]:
        """Return the ways to move bytes: those that are open, in order of preference, with what they can do; then
        the others that are installed, with the reason why where they can't be used here.

        To find that out those are opened for a moment that are not, each once in a process, which takes up to a second;
        on a host with a GPU, GPUDirect Storage then initialises CUDA.
        """
        self.engine.check_open()
        return report_backends(self.engine)

    def query(
        self, names: Sequence[str], *, kind: MemoryKind = MemoryKind.FILE, backend: str | None = None
    ) -> list[Mapping[str, str] | None]:
        """Ask what is there under some paths or keys; waits for the device or the store.

        Args:
            names: Paths of files, or keys of objects.
            kind: FILE or OBJECT.
            backend: Which backend to ask; by default the first that can be asked about this kind.

        Returns:
            For each ``size`` in bytes, ``mtime`` in seconds of the epoch, and what the backend adds; None for what is
            not there.

        Raises:
            NoBackendError: No backend can be asked.
            BackendError: It could not be found out.
        """
        self.engine.check_open()
        with self._lock:
            self._open_for(frozenset({kind}))
        for name, found in list(self.engine.backends.items()):
            is_meant = name == canonical_name(backend) if backend else kind in self.engine.capabilities[name].own_kinds
            if is_meant and isinstance(found, QueryableBackend):
                return found.query(kind, names)
        raise NoBackendError(
            f"agent {self.name!r} has no backend{f' {backend!r}' if backend else ''} that can be asked about "
            f"{kind.name} (it has {list(self.engine.backends)})"
        )

    def _open_for(self, kinds: frozenset[MemoryKind]) -> None:
        """Open what files and objects need, the first time there are any. Called with the agent's lock held."""
        wanted = self._kinds | kinds
        if not self._opens_storage or wanted == self._kinds:
            return
        for name, is_needed in storage_for(wanted, self.engine.backends):
            try:
                self.create_backend(name)
            except (BackendUnavailableError, MemoryRegistrationError) as error:
                if is_needed:
                    raise
                self.engine.unavailable[canonical_name(name)] = str(error)
        self._kinds = wanted
