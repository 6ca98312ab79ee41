"""The backend for object stores."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.backend.contract import Capabilities, Cost, Posting
from trunkline.backend.plugins.object.config import (
    LEAST_PART_SIZE,
    PART_SIZE,
    Location,
    open_location,
    seconds,
    whole_number,
)
from trunkline.backend.plugins.object.failure import Redaction
from trunkline.backend.plugins.object.request import ObjectRequest
from trunkline.backend.plugins.object.segment import LARGEST_OBJECT, SegmentTable
from trunkline.backend.plugins.object.worker import Worker
from trunkline.errors import BackendError, ConfigurationError, MemoryRegistrationError
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from obstore.store import ObjectStore

    from trunkline.backend.contract import BackendPeer, Request, Slots

CONCURRENCY = 16


class ObjectBackend:
    """Moves bytes between memory and objects of one store: a bucket or container, a local folder, or memory.

    Ranges of objects are read, several at a time, and joined where they lie close together. Objects are written whole:
    the rows of a transfer that go to one object must together cover it once, from byte 0 on, and nothing of it is
    seen before all of it is there. Credentials come from the options or from where obstore looks for them: the
    environment, and the metadata services of clouds.

    Args:
        agent_name: For messages and the name of its thread.
        url: ``s3://bucket/prefix``, ``gs://bucket``, ``az://account/container``, ``file:///folder`` or ``memory://``.
        concurrency: Most requests to the store at once; NIXL's ``num_threads``.
        part_size: Most bytes of a request, from 5 MiB on; larger objects are written in parts of it. Memory for
            about ``concurrency`` parts is used while transfers run. NIXL's ``crtMinLimit``.
        max_retries: How often a request is tried again after 5xx and 429 answers (throttling is either), timeouts and
            broken connections; obstore's default is 10.
        retry_timeout: Seconds after which a request is not tried again; obstore's default is 180.
        timeout: Seconds of one try; obstore's default is 30.
        store: An open store of obstore's, instead of a URL and options.
        **options: The store's: obstore's names (``region``, ``endpoint``, ``access_key_id``, ``client_options`` ...)
            or those of NIXL's OBJ plug-in (``bucket``, ``endpoint_override``, ``access_key`` ...).

    Raises:
        BackendUnavailableError: obstore is not installed, or no store was named.
        ConfigurationError: An option can't be used.
    """

    name = "OBJ"
    capabilities = Capabilities(
        frozenset({MemoryKind.DRAM}),
        own_kinds=frozenset({MemoryKind.OBJECT}),
        progress=True,
        queries=True,
        cost=Cost(start=5e-3, row=1e-6, rate=5e8),
    )

    def __init__(
        self,
        agent_name: str,
        *,
        url: str | None = None,
        concurrency: int | str = CONCURRENCY,
        part_size: int | str = PART_SIZE,
        max_retries: int | str | None = None,
        retry_timeout: float | str | None = None,
        timeout: float | str | None = None,
        store: ObjectStore | None = None,
        **options: Any,
    ) -> None:
        limit = whole_number("concurrency", options.pop("num_threads", concurrency))
        least = options.pop("crtMinLimit", None)
        if least is not None:
            part_size = max(LEAST_PART_SIZE, whole_number("crtMinLimit", least))
        self._part_size = whole_number("part_size", part_size, LEAST_PART_SIZE)
        retries = None if max_retries is None else whole_number("max_retries", max_retries, 0)
        if store is None:
            location = open_location(
                url,
                options,
                max_retries=retries,
                retry_timeout=seconds("retry_timeout", retry_timeout),
                timeout=seconds("timeout", timeout),
            )
        elif url is not None or options or (max_retries, retry_timeout, timeout) != (None, None, None):
            raise ConfigurationError("store= is open already: give it alone, or url= and options", option="store")
        else:
            held: Mapping[str, Any] = getattr(store, "config", None) or {}
            location = Location(store, _describe(store, held), Redaction(held, os.environ))
        self._agent_name = agent_name
        self._location = location
        self._worker = Worker(agent_name, location, limit)
        self._table = SegmentTable()

    def register(self, kind: MemoryKind, segments: NDArray[np.uint64], names: Sequence[str] = ()) -> Slots:
        """Register N×3 segments of memory or of objects; all or none. Nothing is asked of the store.

        An object's key is its name; without one it is the device number, as in NIXL.

        Raises:
            MemoryRegistrationError: One can't be registered; none was.
        """
        self._worker.check_open()
        if kind not in {MemoryKind.DRAM, MemoryKind.OBJECT}:
            raise MemoryRegistrationError(
                f"agent {self._agent_name!r}: the OBJ backend can't register {kind.name} memory (only DRAM and OBJECT)",
                agent=self._agent_name,
                kind=kind.name,
            )
        start, length = segments[:, 0], segments[:, 1]
        keys: list[str] = []
        if kind is MemoryKind.DRAM:
            bad = np.flatnonzero((start == 0) | (length == 0) | (start + length < start))
        else:
            most = np.uint64(LARGEST_OBJECT)
            bad = np.flatnonzero((length == 0) | (start > most) | (length > most))
        if len(bad):
            row = int(bad[0])
            self._refuse(row, segments, "it is not memory" if kind is MemoryKind.DRAM else "no object is like that")
        if kind is MemoryKind.OBJECT:
            given = list(names) or [""] * len(segments)
            if len(given) != len(segments):
                self._refuse(0, segments, f"{len(given)} names were given for {len(segments)} objects")
            keys = [name or str(device) for name, device in zip(given, segments[:, 2].tolist(), strict=True)]
            for row, key in enumerate(keys):
                if any(part in {"", ".", ".."} for part in key.split("/")):
                    self._refuse(
                        row,
                        segments,
                        f"a store can't tell key {key!r} from another: no part of it may be empty, '.' or '..'",
                    )
        with self._worker.lock:
            self._worker.check_open()
            return self._table.add(segments, keys)

    def _refuse(self, row: int, segments: NDArray[np.uint64], why: str) -> None:
        address, length, device = segments[row].tolist()
        raise MemoryRegistrationError(
            f"agent {self._agent_name!r}: the OBJ backend could not register segment {row} of {len(segments)} "
            f"({length} bytes at {address:#x}, device {device}): {why}; none was registered",
            agent=self._agent_name,
            row=row,
        )

    def deregister(self, slots: Slots) -> None:
        """Forget registered segments."""
        self._worker.check_open()
        with self._worker.lock:
            self._table.remove(slots)

    def prepare(self, posting: Posting, peer: BackendPeer | None) -> ObjectRequest:
        """Bind a posting; ``peer`` must be None."""
        self._worker.check_open()
        if peer is not None:
            raise BackendError(f"the OBJ backend works within one agent; it can't reach peer {peer.name!r}")
        return ObjectRequest(self._worker, self._table, posting, self._part_size)

    def query(self, kind: MemoryKind, names: Sequence[str]) -> list[Mapping[str, str] | None]:
        """Ask the store about objects: ``size``, ``mtime``, ``etag`` (and ``version``); None for what is not there.

        Raises:
            BackendError: It could not be found out; says of which object, and what the store answered.
        """
        if kind is not MemoryKind.OBJECT:
            raise BackendError(f"the OBJ backend can't be asked about {kind.name}, only about OBJECT")
        found: list[Mapping[str, str] | None] = []
        for answer in self._worker.query(names):
            if answer is None:
                found.append(None)
                continue
            facts = {"size": str(answer["size"]), "mtime": f"{answer['last_modified'].timestamp():.6f}"}
            facts |= {"etag": answer["e_tag"]} if answer.get("e_tag") else {}
            facts |= {"version": answer["version"]} if answer.get("version") else {}
            found.append(facts)
        return found

    def progress(self) -> bool:
        """Return whether finished requests can be taken; the backend's thread needs no driving."""
        self._worker.check_open()
        return bool(self._worker.finished)

    def run(self, until: float) -> None:
        """Sleep until a request has finished, ``wake`` or ``until``."""
        worker = self._worker
        worker.check_open()
        worker.wait(lambda: worker.finished or worker.is_woken or worker.is_closed, until)
        with worker.lock:
            worker.is_woken = False
        worker.check_open()

    def wake(self) -> None:
        """Make ``run`` return soon."""
        self._worker.check_open()
        with self._worker.lock:
            self._worker.is_woken = True
        self._worker.wake()

    def take_finished(self) -> list[Request]:
        """Return the requests that became quiet and that nobody's ``poll`` or ``wait`` has reported."""
        worker = self._worker
        worker.check_open()
        with worker.lock:
            finished: list[Request] = [*worker.finished]
            worker.finished.clear()
            return finished

    def take_failed_peers(self) -> list[BackendPeer]:
        """Return nothing: there are no peers."""
        return []

    @property
    def outstanding(self) -> int:
        """How many segments are registered."""
        self._worker.check_process()
        with self._worker.lock:
            return self._table.outstanding

    def close(self) -> None:
        """Stop everything and end the thread, within seconds. Idempotent."""
        self._worker.close()

    def __repr__(self) -> str:
        state = ": closed" if self._worker.is_closed else ""
        return f"<ObjectBackend of {self._agent_name!r} on {self._location.label}{state}>"


def _describe(store: ObjectStore, config: Mapping[str, Any]) -> str:
    """Return a name for a store that somebody else opened, of what holds no secret."""
    place = config.get("bucket") or config.get("container_name") or getattr(store, "prefix", None) or ""
    return f"{type(store).__name__.removesuffix('Store').lower()}://{place}"
