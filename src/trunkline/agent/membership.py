"""An agent's place in the phone book: its store, its directory, and the publisher that holds its name."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from trunkline.directory.directory import Directory
from trunkline.errors import ConfigurationError, DeadlineError, TrunklineError
from trunkline.metadata.key import MetadataKey, places
from trunkline.store.registry import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from trunkline.clock import Clock, Deadline
    from trunkline.directory.publication import Publication
    from trunkline.metadata.presence import State
    from trunkline.store.contract import Store

log = logging.getLogger(__name__)


class Membership:
    """Holds a name from construction to :meth:`close`. Any thread may call any method.

    Args:
        name: The agent's name.
        store: A URL, opened and closed here, or an open Store, which stays its owner's.
        namespace: Key prefix of the deployment.
        store_options: How a URL is opened.
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
        store_options: Mapping[str, Any],
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
        self._namespace = namespace
        self._followed: set[str] = set()  # NIXL's own agents, whose keys are watched one by one
        self._following = threading.Lock()  # guards it; before the observer's lock
        self._turn = threading.Lock()  # so that what is published last is the latest; held while the store works
        if store_options and not isinstance(store, str):
            raise ConfigurationError(f"agent {name!r}: store_options are for a store that is given by its URL")
        with contextlib.ExitStack() as cleanup:
            opened = cleanup.enter_context(open_store(store, **store_options)) if isinstance(store, str) else store
            self._directory = Directory(opened, namespace=namespace, clock=clock)
            self.publisher = self._directory.open_publisher(
                name,
                incarnation=incarnation,
                ttl=ttl,
                attributes=attributes,
                backends=backends,
                takeover=takeover,
                timeout=timeout,
            )
            self.observer = cleanup.enter_context(self._directory.observe())
            self._cleanup = cleanup.pop_all()

    def publish(self, label: str, describe: Callable[[], tuple[bytes, bytes | None]], deadline: Deadline) -> int:
        """Publish the metadata and catalog that ``describe`` gives when it is this call's turn; return the revision.

        Raises:
            StoreError, SupersededError, DeadlineError: As for Agent.publish.
        """
        with self._my_turn(deadline):
            metadata, catalog = describe()
            return self.publisher.publish(metadata, catalog=catalog, label=label, timeout=deadline.remaining())

    def publish_rest(self, describe: Callable[[str], tuple[bytes, bytes | None] | None], deadline: Deadline) -> None:
        """Have the store hold no more than is left of every label, once what other threads publish has ended.

        Nothing is asked of a store that is known to do so.

        Args:
            describe: Gives a label's metadata and the catalog; None for a label that is to go.
            deadline: When to give up.

        Raises:
            StoreError, SupersededError, DeadlineError: As for Agent.publish.
        """
        publisher = self.publisher
        with self._my_turn(deadline):
            for label in publisher.labels:
                rest = describe(label)
                if rest is None:
                    publisher.withdraw(label=label, timeout=deadline.remaining())
                    continue
                metadata, catalog = rest
                if not publisher.holds(metadata, catalog=catalog, label=label):
                    publisher.publish(metadata, catalog=catalog, label=label, timeout=deadline.remaining())
            if publisher.is_in_doubt:  # what was withdrawn last may be there still
                publisher.update(timeout=deadline.remaining())

    def withdraw(self, label: str | None, deadline: Deadline) -> int:
        """Take back what was published, or one label of it; return the revision. Raises as :meth:`publish`."""
        with self._my_turn(deadline):
            return self.publisher.withdraw(label=label, timeout=deadline.remaining())

    def update(
        self, deadline: Deadline, *, attributes: Mapping[str, str] | None = None, state: State | None = None
    ) -> int:
        """Change what the agent says of itself; return the revision. Raises as :meth:`publish`."""
        with self._my_turn(deadline):
            return self.publisher.update(attributes=attributes, state=state, timeout=deadline.remaining())

    def fetch(
        self, names: Iterable[str], label: str, except_incarnations: Collection[str], deadline: Deadline
    ) -> Iterator[Publication]:
        """Find other agents. Raises as Directory.fetch_many."""
        return self._directory.fetch_many(
            names, label=label, timeout=deadline.remaining(), except_incarnations=except_incarnations
        )

    def follow_nixl(self, name: str) -> None:
        """Have the observer tell of one of NIXL's own agents. Idempotent."""
        with self._following:
            if name not in self._followed:
                self._followed.add(name)
                for place in places(self._namespace):
                    self.observer.follow(MetadataKey(place, name).agent_prefix)

    def unfollow_nixl(self, name: str) -> None:
        """Undo :meth:`follow_nixl`. Idempotent."""
        with self._following:
            if name in self._followed:
                self._followed.remove(name)
                for place in places(self._namespace):
                    self.observer.unfollow(MetadataKey(place, name).agent_prefix)

    def wait_heard(self, drain: float, deadline: Deadline) -> None:
        """Give peers time to hear of the latest change: ``drain`` seconds from when it was made."""
        changed_at = self.publisher.changed_at
        left = 0.0 if changed_at is None else changed_at + drain - self._clock.monotonic()
        if left > 0:
            self._clock.wait(threading.Event(), deadline.remaining(at_most=left))

    def close(self, drain: float, deadline: Deadline) -> None:
        """Give the name up, and give peers time to hear of it. Never raises for a store that is away."""
        try:
            self.publisher.close(timeout=deadline.remaining())
        except TrunklineError as error:
            log.warning("agent %r: its keys stay until the lease ends: %s", self._name, error)
        self.wait_heard(drain, deadline)

    def disconnect(self) -> None:
        """Watch nothing any more, and close the store if it was opened here."""
        for name in list(self._followed):  # other agents of this process go on with the observer
            self.unfollow_nixl(name)
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
