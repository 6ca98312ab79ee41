"""An agent's place in the phone book: its store, its directory, and the session that holds its name."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from trunkline.directory.directory import Directory
from trunkline.errors import DeadlineError, TrunklineError
from trunkline.store.registry import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from trunkline.clock import Clock, Deadline
    from trunkline.directory.publication import Publication
    from trunkline.store.contract import Store

log = logging.getLogger(__name__)


class Membership:
    """Holds a name from construction to :meth:`close`. Any thread may call any method.

    Args:
        name: The agent's name.
        store: A URL, opened and closed here, or an open Store, which stays its owner's.
        namespace: Key prefix of the deployment.
        incarnation: Which run of the agent this is.
        ttl: Seconds until the keys of a killed agent vanish.
        attributes: What peers may know of it.
        backends: Names of its backends.
        takeover: Replace a live agent of the same name.
        timeout: Seconds to claim the name.
        clock: Measures waiting.

    Raises:
        ConfigurationError, StoreError, AgentNameInUseError: As for Agent.
    """

    def __init__(
        self,
        name: str,
        store: str | Store,
        namespace: str,
        *,
        incarnation: str,
        ttl: float,
        attributes: Mapping[str, str],
        backends: Sequence[str],
        takeover: bool,
        timeout: float | None,
        clock: Clock,
    ) -> None:
        self._name = name
        self._clock = clock
        self._turn = threading.Lock()  # so that what is published last is the latest; held while the store works
        self._published = False
        with contextlib.ExitStack() as cleanup:
            opened = cleanup.enter_context(open_store(store)) if isinstance(store, str) else store
            self._directory = Directory(opened, namespace=namespace, clock=clock)
            self._session = self._directory.open_session(
                name,
                incarnation=incarnation,
                ttl=ttl,
                attributes=attributes,
                backends=backends,
                takeover=takeover,
                timeout=timeout,
            )
            self._cleanup = cleanup.pop_all()

    @property
    def lost(self) -> str | None:
        """Why the name is not held any more, or None."""
        return self._session.lost

    @property
    def is_published(self) -> bool:
        """Whether anything of the agent is published."""
        return self._published

    def publish(self, describe: Callable[[], tuple[bytes, bytes | None]], deadline: Deadline) -> int:
        """Publish the metadata and catalog that ``describe`` gives when it is this call's turn; return the revision.

        Raises:
            StoreError, SessionLostError, SupersededError, DeadlineError: As for Agent.publish.
        """
        with self._my_turn(deadline):
            metadata, catalog = describe()
            revision = self._session.publish(metadata, catalog=catalog, timeout=deadline.remaining())
            self._published = True
            return revision

    def withdraw(self, deadline: Deadline) -> int:
        """Take back what was published and return the revision. Raises as :meth:`publish`."""
        with self._my_turn(deadline):
            revision = self._session.withdraw(timeout=deadline.remaining())
            self._published = False
            return revision

    def fetch(self, name: str, except_incarnations: Collection[str], deadline: Deadline) -> Publication:
        """Find another agent. Raises as Directory.fetch."""
        return self._directory.fetch(name, timeout=deadline.remaining(), except_incarnations=except_incarnations)

    def wait_heard(self, drain: float, deadline: Deadline) -> None:
        """Give peers time to hear of a change."""
        self._clock.wait(threading.Event(), deadline.remaining(at_most=drain))

    def close(self, drain: float, deadline: Deadline) -> None:
        """Give the name up, and give peers time to hear of it. Never raises for a store that is away."""
        try:
            self._session.close(timeout=deadline.remaining())
        except TrunklineError as error:
            log.warning("agent %r: its keys stay until the lease ends: %s", self._name, error)
        if self._published:
            self.wait_heard(drain, deadline)

    def disconnect(self) -> None:
        """Close the store, if it was opened here."""
        self._cleanup.close()

    @contextlib.contextmanager
    def _my_turn(self, deadline: Deadline) -> Iterator[None]:
        """Wait for what other threads are publishing."""
        remaining = deadline.remaining()
        if not self._turn.acquire(timeout=-1 if remaining is None else min(remaining, threading.TIMEOUT_MAX)):
            raise DeadlineError(
                f"agent {self._name!r} is still publishing in another thread after {deadline.elapsed:.1f} s; "
                "is the store away?",
                agent=self._name,
            )
        try:
            yield
        finally:
            self._turn.release()
