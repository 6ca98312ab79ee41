"""All checks, in the order in which one would look."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trunkline.errors import TrunklineError
from trunkline.etcd.config import EtcdConfig
from trunkline.inspection.finding import Finding, Severity, ok, problem
from trunkline.inspection.host_check import check_environment, check_limits, check_ptrace, check_ucx
from trunkline.inspection.namespace_check import check_agents, check_leases, check_namespace
from trunkline.inspection.overview import read_overview
from trunkline.inspection.store_check import (
    ask_members,
    check_auth,
    check_clock,
    check_endpoints,
    check_space,
    check_tls,
    check_version,
)
from trunkline.store.registry import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trunkline.inspection.overview import Overview
    from trunkline.store.contract import Store

NO_STORE = "there is no store to look at"


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor found.

    Attributes:
        store: The store that was looked at, without credentials; empty for none.
        namespace: The namespace.
        findings: In the order of the checks.
        overview: Who is there; None if the store could not be read.
        config: How etcd is reached; None for another store, or none.
    """

    store: str
    namespace: str
    findings: tuple[Finding, ...]
    overview: Overview | None = None
    config: EtcdConfig | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether there is no problem; warnings don't count."""
        return all(finding.severity is not Severity.PROBLEM for finding in self.findings)


def examine(
    url: str | None,
    namespace: str,
    *,
    options: Mapping[str, Any] | None = None,
    devices: str | None = None,
    timeout: float = 3.0,
) -> Report:
    """Run all checks. Writes nothing.

    Args:
        url: The store; None if there is none, and only this machine is looked at.
        namespace: The namespace.
        options: What the store is opened with besides its URL: credentials.
        devices: Network devices that UCX may use.
        timeout: Seconds that each question may take.
    """
    host = [
        *_try("environment", lambda: check_environment(os.environ, namespace)),
        *_try("ucx", lambda: check_ucx(devices=devices, timeout=timeout)),
        *_try("ptrace", check_ptrace),
        *_try("limits", check_limits),
    ]
    if url is None:
        advice = "give --store etcd://HOST:2379 or set NIXL_ETCD_ENDPOINTS; to try: trunkline etcd"
        return Report("", namespace, (problem("endpoint", NO_STORE, advice), *host))
    try:
        store = open_store(url, **(options or {}))
    except TrunklineError as error:
        return Report("", namespace, (problem("endpoint", str(error), "correct --store or the variables"), *host))
    with store:
        config = store.identity if isinstance(store.identity, EtcdConfig) else None
        findings, overview = _examine_store(store, config, namespace, timeout)
        return Report(store.url, namespace, (*findings, *host), overview, config)


def _examine_store(
    store: Store, config: EtcdConfig | None, namespace: str, timeout: float
) -> tuple[list[Finding], Overview | None]:
    if config is None:
        findings = [ok("endpoint", f"{store.url} is no etcd: nothing to check there")]
    else:
        members = ask_members(config, timeout)
        findings = [*check_endpoints(members), *_try("tls", lambda: check_tls(config, timeout))]
        if all(member.status is None for member in members):
            return findings, None
        auth = _try("auth", lambda: check_auth(config, namespace, timeout))
        findings += [
            *auth,
            *check_version(members, has_auth=bool(config.credentials.username)),
            *check_space(members),
            *check_clock(config, timeout),
        ]
        if any(finding.severity is Severity.PROBLEM for finding in auth):
            return findings, None
    try:
        overview = read_overview(store, namespace, timeout=timeout * 10)
    except TrunklineError as error:
        return [*findings, problem("namespace", str(error), "")], None
    findings += [*check_namespace(overview), *check_leases(overview), *check_agents(overview)]
    return findings, overview


def _try(check: str, run: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return run()
    except TrunklineError as error:
        return [problem(check, str(error), "")]
