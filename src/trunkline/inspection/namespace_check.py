"""Checks of what lies in a namespace: mixed-up namespaces, keys without a lease, agents that don't refresh."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from trunkline.inspection.finding import Finding, ok, problem, warning
from trunkline.inspection.garbage import Reason, left_over_in
from trunkline.metadata.key import DEFAULT_NAMESPACE, NIXL_NAMESPACE, classify, places

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trunkline.inspection.overview import AgentOverview, Overview

SHOWN_NAMES = 5
"""How many names a message lists."""

LARGE_METADATA = 1 << 20
"""Bytes of one label from which on it lies in chunks."""

MAX_AHEAD = 5.0
"""Seconds that an agent may have been opened in the future."""


def check_namespace(overview: Overview) -> list[Finding]:
    """Whether agents that should find each other look in different places."""
    name, namespace = "namespace", overview.keyspace.namespace
    found = []
    used = {agent.namespace for agent in overview.agents}
    if len(used) > 1:
        message = (
            f"agents lie under {DEFAULT_NAMESPACE}/ and, with a double slash, under {NIXL_NAMESPACE}/: Trunkline's "
            "look in both, NIXL's own only in their own"
        )
        advice = f"set NIXL_ETCD_NAMESPACE={DEFAULT_NAMESPACE} for NIXL's agents"
        found.append(warning(name, message, advice))
    if namespace not in places(DEFAULT_NAMESPACE):
        found += _check_slash(overview)
    deeper = len(overview.keyspace.others)
    if deeper and not overview.agents:
        message = f"nothing under {namespace}/ is an agent's, but {deeper:,} other keys lie there"
        advice = "a longer prefix may be meant; the namespace is what stands before the agents' names"
        found.append(warning(name, message, advice))
    elif not overview.agents:
        advice = "check --namespace and NIXL_ETCD_NAMESPACE, here and where agents run"
        found.append(warning(name, f"nobody is under {namespace}/", advice))
    if not found:
        more = f", and {deeper:,} keys of others" if deeper else ""
        found.append(ok(name, f"{_count(len(overview.agents), 'agent')} under {namespace}/{more}"))
    return found


def check_leases(overview: Overview) -> list[Finding]:
    """Whether keys stay for ever if their agents die."""
    name = "leases"
    plan = left_over_in(overview.keyspace)
    found = []
    for reason in Reason:
        owners = [each.owner for each in plan.left_over if each.reason is reason]
        if not owners:
            continue
        message = f"{reason}: {_list(owners)}"
        if reason in (Reason.NIXL, Reason.MARKER):
            message += "; without a lease nothing tells whether they live"
            advice = "trunkline ping NAME tells; remove dead ones with trunkline gc --nixl-agents NAME --apply"
        else:
            advice = "see them with trunkline gc, delete them with trunkline gc --apply"
        found.append(warning(name, message, advice))
    if not found:
        leased = sum(agent.lease != 0 for agent in overview.agents)
        found.append(ok(name, f"every key of an agent has a lease ({_count(leased, 'agent')})"))
    return found


def check_agents(overview: Overview) -> list[Finding]:
    """Whether agents refresh their leases, and can be read by this version."""
    name = "agents"
    agents = overview.agents
    late = [
        agent.name
        for agent in agents
        if agent.lease_remaining is not None and agent.ttl and agent.lease_remaining < agent.ttl / 2
    ]
    found = []
    if late:
        message = f"not refreshed for more than half of the lease: {_list(late)}"
        advice = "they are dead, stopped, starved of processor time, or cut off from etcd; others see them vanish soon"
        found.append(warning(name, message, advice))
    found += _name_those(agents, "broken", "their records can't be read", "another program writes there; look who")
    found += _name_those(agents, "too new", "their records are for newer readers", "upgrade Trunkline here")
    large = [agent.name for agent in agents if any((size or 0) > LARGE_METADATA for size in agent.labels.values())]
    if large and any(agent.is_nixl for agent in agents):
        message = f"over 1 MiB of metadata, whose memory NIXL's agents, which are here too, can't see: {_list(large)}"
        found.append(warning(name, message, "register fewer, larger regions, or publish them in parts, by label"))
    now = time.time()
    ahead = [agent.name for agent in agents if agent.opened_at > now + MAX_AHEAD]
    if ahead:
        message = f"opened in the future by their own clocks: {_list(ahead)}"
        found.append(warning(name, message, "set the clocks there and here by NTP"))
    return found or [ok(name, f"{_count(len(agents), 'agent')}, none late, all readable")]


def _check_slash(overview: Overview) -> list[Finding]:
    """Look for agents whose namespace differs by a slash at its end; what lies outside is not looked at."""
    name, namespace = "namespace", overview.keyspace.namespace
    advice = "agents of the two don't find each other: give all of them one namespace, without a slash at its end"
    if namespace.endswith("/"):
        message = f"{namespace} ends in a slash, so keys hold two: agents of {namespace.rstrip('/')} are elsewhere"
        return [warning(name, message, advice)]
    twin = f"{namespace}/"
    owners = {owner[1] for entry in overview.keyspace.others if (owner := classify(twin, entry.key)) is not None}
    if not owners:
        return []
    message = f"agents lie under {namespace}// as well, as if {twin} were their namespace: {_list(owners)}"
    return [problem(name, message, advice)]


def _name_those(agents: Sequence[AgentOverview], state: str, message: str, advice: str) -> list[Finding]:
    names = [agent.name for agent in agents if agent.state == state]
    return [warning("agents", f"{message}: {_list(names)}", advice)] if names else []


def _list(names: Iterable[str]) -> str:
    every = sorted(set(names))
    more = f" and {len(every) - SHOWN_NAMES:,} more" if len(every) > SHOWN_NAMES else ""
    return ", ".join(every[:SHOWN_NAMES]) + more


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"
