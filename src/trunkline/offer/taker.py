"""Taking an offer: read one-sidedly, checked and written while the next chunks travel."""

from __future__ import annotations

import functools
import hashlib
import hmac
import mmap
import queue
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from trunkline.clock import Deadline
from trunkline.errors import (
    DeadlineError,
    MetadataDecodeError,
    PeerError,
    SegmentNotFoundError,
    TransferError,
    VerificationError,
)
from trunkline.offer.destination import Destination, check_destination
from trunkline.offer.direct import DirectTaking
from trunkline.offer.manifest import FILE_GROUP, MANIFEST, MAX_BYTES, Manifest, decode_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trunkline.agent.agent import Agent
    from trunkline.agent.peer import Peer
    from trunkline.agent.tensor import LocalTensor, RemoteTensor
    from trunkline.offer.destination import Chunk
    from trunkline.offer.ticket import Ticket
    from trunkline.transfer.handle import TransferHandle

SLOTS = 4
"""How many chunks are under way at once, on the wire or to the disk: memory for as many is registered."""

WRITERS = 2
"""Threads that hash and write (both without the GIL)."""

STALL_TIMEOUT = 60.0
"""Seconds without any progress after which a take is given up."""


class Progress(NamedTuple):
    """What a take reports; each is called with a number of bytes, on the thread that takes.

    Attributes:
        start: All that is to be taken; called once.
        keep: A chunk that an earlier take had left.
        advance: A chunk that was fetched, verified and written.
    """

    start: Callable[[int], object]
    keep: Callable[[int], object]
    advance: Callable[[int], object]


def take(
    agent: Agent, name: str, path: Path, *, timeout: float | None, progress: Progress, force: bool = False
) -> Manifest:
    """Fetch all files of an offer to ``path``.

    Args:
        agent: Who takes.
        name: Who offers.
        path: The final name of the file or directory.
        timeout: Seconds to wait for the offer to be there.
        progress: Whom to tell.
        force: Replace an existing file.

    Returns:
        What was taken.

    Raises:
        AgentNotFoundError: Nobody of that name came in time; names similar ones.
        SegmentNotFoundError, MetadataDecodeError: It offers no files, or nothing that could be trusted.
        VerificationError: What arrived is not what was offered.
        FileError: The destination can't be used, or the disk is full.
        TransferError: The transfer broke; what was verified is kept, and taking again goes on from there.
    """
    check_destination(path, is_directory=None, force=force)
    deadline = Deadline(timeout)
    peer = agent.fetch(name, timeout=timeout)
    manifest = read_manifest(agent, peer, timeout=deadline.remaining(at_most=STALL_TIMEOUT))
    _take_files(agent, peer, manifest, path, progress, force=force)
    return manifest


def take_direct(
    agent: Agent, ticket: Ticket, path: Path, *, timeout: float | None, progress: Progress, force: bool = False
) -> Manifest:
    """Fetch all files of an offer by its ticket, which is used up then.

    Args:
        agent: Who takes.
        ticket: The ticket.
        path: As for :func:`take`.
        timeout: Seconds for the offer to answer.
        progress: As for :func:`take`.
        force: As for :func:`take`.

    Returns:
        What was taken.

    Raises:
        PeerUnreachableError: Nobody listens where the ticket says.
        TicketError: The offer there is another, or it is taken by someone else.
        VerificationError: What is offered is not what the ticket is for, or what arrived is not what was offered.
        MetadataDecodeError, FileError, TransferError: As for :func:`take`.
    """
    check_destination(path, is_directory=None, force=force)
    deadline = Deadline(timeout)
    with DirectTaking(ticket, timeout) as taking:
        peer = agent.load_peer(taking.card)
        left = deadline.remaining(at_most=STALL_TIMEOUT)
        manifest = read_manifest(agent, peer, timeout=left, digest=ticket.digest)
        _take_files(agent, peer, manifest, path, progress, force=force)
        taking.finish()
    return manifest


def _take_files(agent: Agent, peer: Peer, manifest: Manifest, path: Path, progress: Progress, *, force: bool) -> None:
    progress.start(manifest.total)
    with Destination(path, manifest, force=force) as destination:
        chunks = destination.missing(progress.keep)
        if chunks:
            try:
                _Copy(agent, peer, destination, progress.advance).run(chunks)
            except (TransferError, PeerError, DeadlineError) as error:
                raise TransferError(
                    f"taking {peer.name!r} broke off: {error}. What was verified is kept in {destination.part}; "
                    "run the same command again to go on from there",
                    reason=str(error),
                    agent=peer.name,
                ) from error
        destination.commit()


def read_manifest(agent: Agent, peer: Peer, *, timeout: float | None, digest: bytes | None = None) -> Manifest:
    """Read a peer's manifest, and check it against the memory the peer offers.

    Args:
        agent: Who reads.
        peer: Whose it is.
        timeout: Seconds that it may take.
        digest: SHA-256 of the manifest, where that is known.

    Raises:
        VerificationError: It has another digest.
        SegmentNotFoundError: The peer offers no files.
        MetadataDecodeError: The manifest can't be used.
        TransferError, PeerError, DeadlineError: It could not be read.
    """
    if MANIFEST not in peer:
        raise SegmentNotFoundError(
            f"agent {peer.name!r} is there but offers no files; was it started by `trunkline offer`?", agent=peer.name
        )
    remote = _as_bytes(peer, MANIFEST)
    if remote.nbytes > MAX_BYTES:
        raise MetadataDecodeError(
            f"the manifest of {peer.name!r} has {remote.nbytes:,} bytes: at most {MAX_BYTES:,} are read", field="size"
        )
    data = bytearray(remote.nbytes)
    local = agent.register(data)
    agent.read(remote, into=local, deadline=timeout).wait(None)
    agent.deregister(local, drain=0)
    if digest is not None and not hmac.compare_digest(hashlib.sha256(data).digest(), digest):
        raise VerificationError(
            f"{peer.name!r} offers something else than the ticket is for: its manifest has another hash",
            agent=peer.name,
        )
    manifest = decode_manifest(data)
    for index, entry in enumerate(manifest.files):
        if entry.size and _as_bytes(peer, f"{FILE_GROUP}/{index}").shape != (entry.size,):
            raise MetadataDecodeError(
                f"{peer.name!r} lists {entry.path!r} with {entry.size:,} bytes, but offers memory of another size",
                field="size",
            )
    return manifest


def _as_bytes(peer: Peer, name: str) -> RemoteTensor:
    view = peer[name]
    if getattr(view, "dtype", "") != "U8" or len(view.shape) != 1:
        raise MetadataDecodeError(f"{peer.name!r} offers {name!r}, but not as plain bytes: {view!r}", field=name)
    found: RemoteTensor = view
    return found


class _Copy:
    """Moves chunks through a ring of registered slots: posted, arrived, written, free again.

    Arrivals and writes end on other threads; both come back through one queue to the thread that runs.
    """

    def __init__(
        self, agent: Agent, peer: Peer, destination: Destination, on_progress: Callable[[int], object]
    ) -> None:
        self._agent = agent
        self._peer = peer
        self._destination = destination
        self._on_progress = on_progress
        self._slot_size = destination.manifest.chunk_size
        self._memory = mmap.mmap(-1, SLOTS * self._slot_size)
        self._events: queue.SimpleQueue[tuple[int, Chunk, TransferHandle | Future[None]]] = queue.SimpleQueue()
        self._reading: dict[int, TransferHandle] = {}

    def run(self, chunks: list[Chunk]) -> None:
        local = self._agent.register(self._memory)
        waiting = deque(chunks)
        free = list(range(SLOTS))
        left = len(chunks)
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="trunkline-take") as writers:
            try:
                while left:
                    while free and waiting:
                        self._post(local, free.pop(), waiting.popleft())
                    slot, chunk, ended = self._next_event()
                    if isinstance(ended, Future):
                        ended.result()
                        free.append(slot)
                        left -= 1
                        self._on_progress(chunk.size)
                    else:
                        del self._reading[slot]
                        if ended.error is not None:
                            raise ended.error
                        start = slot * self._slot_size
                        data = memoryview(self._memory)[start : start + chunk.size]
                        writing = writers.submit(self._destination.write, chunk, data)
                        writing.add_done_callback(functools.partial(self._report, slot, chunk))
            except BaseException:
                # The agent, not we, keeps the memory for as long as the transport may still write to it.
                for transfer in self._reading.values():
                    transfer.cancel()
                raise
        self._agent.deregister(local, drain=0)

    def _post(self, local: LocalTensor, slot: int, chunk: Chunk) -> None:
        remote = self._peer[f"{FILE_GROUP}/{chunk.file}"][chunk.start : chunk.start + chunk.size]
        start = slot * self._slot_size
        transfer = self._agent.read(remote, into=local[start : start + chunk.size])
        self._reading[slot] = transfer
        transfer.add_done_callback(functools.partial(self._report, slot, chunk))

    def _report(self, slot: int, chunk: Chunk, ended: Any) -> None:
        self._events.put((slot, chunk, ended))

    def _next_event(self) -> tuple[int, Chunk, TransferHandle | Future[None]]:
        try:
            return self._events.get(timeout=STALL_TIMEOUT)
        except queue.Empty:
            raise DeadlineError(
                f"nothing arrived from {self._peer.name!r} for {STALL_TIMEOUT:g} s", agent=self._peer.name
            ) from None
