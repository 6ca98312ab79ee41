"""Putting a NIXL agent behind the phone book: under which name, in which store, and whether that can be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trunkline.agent.membership import Membership
from trunkline.clock import SYSTEM_CLOCK, Clock, Deadline
from trunkline.config import Settings
from trunkline.errors import ConfigurationError, NoStoreError
from trunkline.metadata.key import NIXL_NAMESPACE, MetadataKey
from trunkline.nixl.adapter import NixlAdapter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trunkline.nixl.contract import NixlAgent
    from trunkline.store.contract import Store

_NEEDED = ("get_agent_metadata", "add_remote_agent", "remove_remote_agent")


def adapt(
    nixl_agent: NixlAgent,
    *,
    store: str | Store | None = None,
    store_options: Mapping[str, Any] | None = None,
    name: str | None = None,
    namespace: str | None = None,
    attributes: Mapping[str, str] | None = None,
    ttl: float | None = None,
    takeover: bool = False,
    timeout: float | None = 30.0,
    clock: Clock = SYSTEM_CLOCK,
) -> NixlAdapter:
    """Put a NIXL agent behind the phone book: claim its name, to publish it, find others and keep them up to date.

    The agent stays the application's: it registers memory and transfers as before. Close the adapter, or use it as a
    context manager. After a fork it can't be used in the child.

    Args:
        nixl_agent: NVIDIA's ``nixl_agent``.
        store: Where agents find each other: a URL (``etcd://host:2379``), or an open Store, which stays the caller's.
            Without it ``NIXL_ETCD_ENDPOINTS`` counts.
        store_options: What a URL is opened with, as for ``Agent``: credentials.
        name: The agent's name, where it has no attribute ``name``.
        namespace: Key prefix that separates deployments; else ``NIXL_ETCD_NAMESPACE``, else ``/nixl/agents/``, as for
            NIXL itself.
        attributes: Free key/value pairs that others see and select by.
        ttl: Seconds until the keys of a killed process vanish, at least 2; else ``TRUNKLINE_SESSION_TTL``, else 30.
        takeover: Replace a live agent of the same name instead of failing.
        timeout: Default for all waiting calls, in seconds; None waits for ever.
        clock: For tests.

    Raises:
        ConfigurationError: It is no NIXL agent, or a name, URL or setting can't be used.
        BackendUnavailableError: This process already uses Trunkline's UCX backend, beside which NIXL's UCX can't be.
        NoStoreError: There is no store.
        StoreError: The store did not answer in time, or refused.
        AgentNameInUseError: A live agent has the name.
    """
    from trunkline.backend.plugins.ucx.library import check_alone

    name = _name_of(nixl_agent, name)
    settings = Settings.from_environment()
    namespace = namespace or settings.namespace or NIXL_NAMESPACE
    MetadataKey(namespace, name)  # refuses what can't be a key
    check_alone()
    store = store if store is not None else settings.store
    if store is None:
        raise NoStoreError(
            f"agent {name!r} has no store: pass store= or set NIXL_ETCD_ENDPOINTS; to try: trunkline etcd", agent=name
        )
    incarnation = os.urandom(16).hex()
    membership = Membership(
        name,
        store,
        namespace,
        store_options=store_options or {},
        incarnation=incarnation,
        ttl=settings.session_ttl if ttl is None else ttl,
        attributes=dict(attributes or {}),
        backends=list(getattr(nixl_agent, "backends", ())),
        takeover=takeover,
        timeout=timeout,
        clock=clock,
    )
    try:
        return NixlAdapter(nixl_agent, membership, name=name, incarnation=incarnation, timeout=timeout, clock=clock)
    except BaseException:
        membership.close(0.0, Deadline(0.0))
        membership.disconnect()
        raise


def _name_of(nixl_agent: object, name: str | None) -> str:
    missing = [method for method in _NEEDED if not callable(getattr(nixl_agent, method, None))]
    if missing:
        raise ConfigurationError(
            f"{type(nixl_agent).__name__} is not a NIXL agent: it has no {', '.join(missing)}; pass NVIDIA's nixl_agent"
        )
    own = getattr(nixl_agent, "name", None)
    if name is None and not isinstance(own, str):
        raise ConfigurationError("the NIXL agent has no attribute 'name': pass name=, as it was given to NIXL")
    if name is not None and isinstance(own, str) and name != own:
        raise ConfigurationError(
            f"name={name!r}: the NIXL agent is called {own!r}, and its metadata says so to peers", name=name
        )
    return str(own if name is None else name)
