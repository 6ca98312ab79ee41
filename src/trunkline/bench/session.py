"""One worker's run from its options to its end: the group, the engine, what is kept when it breaks off."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

from trunkline.bench.coordinator import TTL, Alone
from trunkline.bench.local import COMMAND, PATIENCE_AFTER_FAILURE, LocalWorkers
from trunkline.bench.roles import assign_roles
from trunkline.config import Settings
from trunkline.errors import ConfigurationError, StoreUnavailableError, TrunklineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine
    from trunkline.bench.engine.metadata import MetadataEngine
    from trunkline.bench.options import Options
    from trunkline.bench.worker import Listener
    from trunkline.coordination import Group
    from trunkline.store.contract import Store

DEFAULT_ENDPOINT = "http://localhost:2379"
"""NIXLBench's."""

RANKS = ("SLURM_PROCID", "JOB_COMPLETION_INDEX", "RANK")
"""Where cluster managers say which of its job's processes one is: Slurm, indexed jobs of Kubernetes, torchrun."""


def run_session(options: Options, listener: Listener) -> None:
    """Be one worker of a run, to its end.

    Args:
        options: The run's, checked.
        listener: Who is told how it goes.

    Raises:
        TrunklineError: It broke off; the other workers were told why.
        KeyboardInterrupt: Likewise.
    """
    with contextlib.ExitStack() as stack:
        store: Store | None = None
        group: Coordinator = Alone()
        if not options.is_storage:
            store, group = join_group(stack, options)
        from trunkline.bench.worker import Worker  # with all it takes; the other workers have been started by now

        is_target = bool(assign_roles(options).initiators_of(group.rank))

        def open_engine(kind: str, name: str) -> Engine:
            return open_worker_engine(kind, name, store, options, is_target=is_target)

        if options.workload == "metadata":
            from trunkline.bench.metadata import MetadataWorker

            def open_metadata(kind: str, name: str) -> MetadataEngine:
                return open_metadata_engine(kind, name, store, options)

            MetadataWorker(group, options, open_metadata, listener).run()
        else:
            Worker(group, options, open_engine, listener).run()


def find_rank(options: Options, environment: Mapping[str, str] = os.environ) -> int | None:
    """Return this worker's number, if it is given or the environment has one; None to number workers as they come.

    Raises:
        ConfigurationError: It is not one of the group's.
    """
    where, text = "--rank", str(options.rank)
    if options.local:
        return 0
    if options.rank < 0:
        where = next((name for name in RANKS if environment.get(name)), "")
        if not where:
            return None
        text = environment[where]
    if not text.isdecimal() or int(text) >= options.size:
        raise ConfigurationError(
            f"{where}={text}: the group has {options.size} workers, so that ranks go from 0 to {options.size - 1}; "
            "give --workers, or another rank",
            rank=text,
        )
    return int(text)


def join_group(
    stack: contextlib.ExitStack, options: Options, command: tuple[str, ...] = COMMAND
) -> tuple[Store, Group]:
    """Join the run's group; with --local start the other workers and an etcd before.

    Args:
        stack: Closes what is opened.
        options: The run's, checked.
        command: What --local starts, before the options.

    Returns:
        The store, for agents to find each other in, and the group.

    Raises:
        TrunklineError: There is no such rank, the store can't be reached, or not everybody came.
    """
    rank = find_rank(options)
    local = stack.enter_context(LocalWorkers(options, command)) if options.local else None
    stack.enter_context(_warming_up(options))
    from trunkline.coordination import Group
    from trunkline.store.registry import open_store

    credentials: dict[str, Any] = {}
    if local is not None:
        local.wait_ready()
        url = local.endpoint
        credentials = {"credentials": ""}  # those of the environment are for another
    else:
        url = options.etcd_endpoints or Settings.from_environment().store or DEFAULT_ENDPOINT
    try:
        store = stack.enter_context(open_store(url, **credentials))
        if url == DEFAULT_ENDPOINT:  # nobody has said that there is one: don't wait for it as for one that starts late
            store.list(
                f"/trunkline/bench/{options.benchmark_group}/", keys_only=True, timeout=min(5.0, options.timeout)
            )
        group = stack.enter_context(
            Group(options.benchmark_group, options.size, store=store, rank=rank, ttl=TTL, timeout=options.timeout)
        )
    except StoreUnavailableError as error:
        if url != DEFAULT_ENDPOINT:
            raise
        raise StoreUnavailableError(
            f"{error}. That is where workers meet if nothing else is said: give --etcd-endpoints, or --local 2 to "
            "start two workers and an etcd on this machine",
            **error.context,
        ) from error
    return store, group


@contextlib.contextmanager
def _warming_up(options: Options) -> Iterator[None]:
    """Have the process's first UCX context made, which takes half a second, most of it idle, while the workers meet."""
    if options.engine != "trunkline":  # NIXL brings a UCX of its own, and there must not be two in a process
        yield
        return
    from trunkline.bench.engine import trunkline as engine  # not in the thread, where others import, too

    def warm_up() -> None:
        with contextlib.suppress(TrunklineError):  # the worker's own opening will say it
            for backend in engine.open_backends("bench", options):
                backend.close()

    thread = threading.Thread(target=warm_up, name="trunkline-bench-warm-up", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        # An import that Ctrl-C interrupts may leave its lock taken (CPython), for which the thread then waits for ever.
        thread.join(PATIENCE_AFTER_FAILURE)
        raise
    thread.join()


def open_worker_engine(kind: str, name: str, store: Store | None, options: Options, *, is_target: bool) -> Engine:
    """Open a worker's engine.

    Args:
        kind: Which.
        name: What the others find it by.
        store: Where; None where it has no others.
        options: The run's.
        is_target: Whether others use its memory.
    """
    if kind == "nixl":
        from trunkline.bench.engine.nixl import NixlEngine

        return NixlEngine(name, options, is_target=is_target)
    from trunkline.bench.engine.trunkline import TrunklineEngine

    return TrunklineEngine(name, store, _namespace(options), options)


def open_metadata_engine(kind: str, name: str, store: Store | None, options: Options) -> MetadataEngine:
    """Open the engine of a worker that exchanges metadata; arguments as for :func:`open_worker_engine`."""
    if kind == "nixl" and store is not None:
        from trunkline.bench.engine.nixl_metadata import NixlMetadata

        scheme, _, hosts = store.url.partition("://")
        http = "https" if scheme in ("etcds", "https") else "http"
        endpoints = ",".join(f"{http}://{host}" for host in hosts.split(","))
        return NixlMetadata(name, options, endpoints, f"{_namespace(options)}/nixl/")
    from trunkline.bench.engine.metadata import TrunklineMetadata
    from trunkline.bench.engine.trunkline import open_agent

    return TrunklineMetadata(open_agent(name, store, _namespace(options), options))


def _namespace(options: Options) -> str:
    """The corner of the store in which the run's agents find each other."""
    return f"/trunkline/bench/{options.benchmark_group}"
