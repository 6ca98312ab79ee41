"""Checks of the etcd itself: whether it answers, who may use it, its version, its space, its clock."""

from __future__ import annotations

import ipaddress
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trunkline.errors import ConfigurationError, StoreAuthError, StoreError
from trunkline.etcd.client import EtcdClient, Status
from trunkline.etcd.credentials import Credentials
from trunkline.etcd.request import prefix_end
from trunkline.inspection.finding import Finding, ok, problem, skipped, warning
from trunkline.inspection.server_clock import read_certificate, read_clock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trunkline.etcd.config import EtcdConfig

DEFAULT_QUOTA = 2 << 30
"""Bytes that etcd's database may take unless its operator raised that."""

MAX_SKEW = 5.0
"""Seconds that two clocks may differ unnoticed."""

CERTIFICATE_MARGIN = 14 * 86_400.0
"""Seconds before a certificate's end from which on that is told."""


@dataclass(frozen=True, slots=True)
class Defect:
    """A known defect of etcd.

    Attributes:
        before: The first version of each minor line without it; lines that are not named never had it.
        what: What it does.
        needs_members: Whether it takes more than one member to do harm.
        needs_auth: Whether it matters only where authentication is on.
    """

    before: Mapping[tuple[int, int], int]
    what: str
    needs_members: bool = False
    needs_auth: bool = False


DEFECTS = (
    Defect({(3, 5): 3}, "can lose committed writes when a member crashes", needs_members=True),
    Defect(
        {(3, 5): 6},
        "can apply writes twice after a member that is being defragmented crashes",
        needs_members=True,
    ),
    Defect(
        {(3, 4): 26, (3, 5): 9},
        "shows the names of a lease's keys to users who may not read them (CVE-2023-32082)",
        needs_auth=True,
    ),
    Defect(
        {(3, 4): 44, (3, 5): 30, (3, 6): 11},
        "lets a user who may write in a transaction read more than the role allows (GHSA-x35m-3gp4-4fh5)",
        needs_auth=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint and what it said of itself.

    Attributes:
        endpoint: ``host:port``.
        status: Its status; None if it did not answer.
        latency: Seconds until it answered.
        error: Why it did not.
    """

    endpoint: str
    status: Status | None
    latency: float = 0.0
    error: str = ""


def ask_members(config: EtcdConfig, timeout: float) -> list[Member]:
    """Ask each endpoint for its status, one after the other."""
    members = []
    for endpoint in config.endpoints:
        try:
            with EtcdClient(replace(config, endpoints=(endpoint,))) as client:
                client.status(timeout=timeout)  # connects
                began = time.monotonic()
                status = client.status(timeout=timeout)
                members.append(Member(endpoint, status, time.monotonic() - began))
        except (StoreError, ConfigurationError) as error:
            members.append(Member(endpoint, None, error=str(error)))
    return members


def check_endpoints(members: list[Member]) -> list[Finding]:
    """Whether each endpoint answers, and has a leader."""
    name = "endpoint"
    found = []
    for member in members:
        if member.status is None:
            is_last = all(each.status is None for each in members)
            advice = "is etcd running there, is the address right, does a firewall or its certificate stand between?"
            found.append((problem if is_last else warning)(name, f"{member.endpoint}: {member.error}", advice))
        elif not member.status.leader:
            advice = "most of its members are down or can't reach each other; start them"
            found.append(problem(name, f"{member.endpoint} answers, and its cluster has no leader", advice))
        else:
            found.append(ok(name, f"{member.endpoint} answers in {member.latency * 1e3:.1f} ms"))
    return found


def check_tls(config: EtcdConfig, timeout: float) -> list[Finding]:
    """Whether what goes to etcd can be read or changed on the way, and for how long certificates last."""
    name = "tls"
    far = [endpoint for endpoint in config.endpoints if not _is_on_loopback(endpoint)]
    if not config.is_secure:
        if not far:
            return [ok(name, "not used, and all endpoints are on loopback")]
        secret = " and the password" if config.credentials.username else ""
        message = f"not used: all traffic{secret} to {', '.join(far)} can be read and changed on the way"
        return [warning(name, message, "let etcd listen with TLS, and name it as https://…")]
    found = []
    for endpoint in config.endpoints:
        certificate = read_certificate(config, endpoint, timeout)
        if isinstance(certificate, str):
            advice = "check ca, cert and key (--credentials, or ETCDCTL_CACERT, _CERT and _KEY), and the server's names"
            found.append(problem(name, f"{endpoint}: {certificate}", advice))
        elif certificate < CERTIFICATE_MARGIN:
            message = f"{endpoint}: its certificate ends in {certificate / 86_400:.1f} days"
            found.append(warning(name, message, "renew it"))
        else:
            found.append(ok(name, f"{endpoint}: verified; its certificate lasts {certificate / 86_400:.0f} days"))
    return found


def check_auth(config: EtcdConfig, namespace: str, timeout: float) -> list[Finding]:
    """Whether etcd asks who we are, and lets us read."""
    name = "auth"
    key = f"{namespace}/".encode()
    shown = config.credentials
    who = f"user {shown.username!r}" if shown.username else "this client" if shown.cert else "nobody in particular"
    try:
        _look(config, key, timeout)
    except StoreAuthError as error:
        return [problem(name, f"{who} may not read {namespace}/: {error}", "give the credentials, or grant the role")]
    if not shown.username and not (config.is_secure and shown.cert):
        return [_open_to_all(config)]
    try:
        _look(replace(config, credentials=Credentials(ca=shown.ca)), key, timeout)
    except StoreError:
        return [ok(name, f"etcd asks for credentials; {who} may read {namespace}/")]
    if shown.username:
        message = f"etcd does not ask who we are: {who} and everybody else may do everything"
        return [warning(name, message, "switch authentication on: etcdctl auth enable")]
    return [_open_to_all(config)]


def check_version(members: list[Member], *, has_auth: bool) -> list[Finding]:
    """Whether a member's version has a known defect."""
    name = "version"
    versions = sorted({member.status.version for member in members if member.status is not None})
    found = []
    for version in versions:
        known = defects_of(version, is_cluster=len(members) > 1, has_auth=has_auth)
        advice = "upgrade etcd to the last release of its line"
        if known is None:
            found.append(skipped(name, f"etcd says {version!r}, which is no version that could be judged"))
        elif known:
            found.append(warning(name, f"etcd {version} {'; it '.join(known)}", advice))
        else:
            found.append(ok(name, f"etcd {version}, no known defect that matters here"))
    if len(versions) > 1:
        message = f"the members run different versions: {', '.join(versions)}"
        found.append(warning(name, message, "finish the upgrade"))
    return found


def defects_of(version: str, *, is_cluster: bool, has_auth: bool) -> list[str] | None:
    """Return the known defects of a version that matter; None if the version can't be read."""
    numbers = version.partition("-")[0].split(".")
    if len(numbers) != 3 or not all(number.isdigit() for number in numbers):
        return None
    major, minor, patch = map(int, numbers)
    return [
        defect.what
        for defect in DEFECTS
        if patch < defect.before.get((major, minor), 0)
        and (is_cluster or not defect.needs_members)
        and (has_auth or not defect.needs_auth)
    ]


def check_space(members: list[Member]) -> list[Finding]:
    """Whether a member's database is full, or says that something is wrong."""
    name = "space"
    found = []
    for member in members:
        if member.status is None:
            continue
        size = f"{member.status.size / (1 << 20):,.1f} MiB"
        if member.status.errors:
            advice = "NOSPACE: compact and defragment it, then etcdctl alarm disarm; CORRUPT: replace the member"
            message = f"{member.endpoint} has raised {', '.join(member.status.errors)}; its database has {size}"
            found.append(problem(name, message, advice))
        elif member.status.size > 0.8 * DEFAULT_QUOTA:
            message = f"{member.endpoint}: its database has {size} of the 2 GiB that etcd allows by default"
            found.append(warning(name, message, "compact and defragment it, or raise --quota-backend-bytes"))
        else:
            found.append(ok(name, f"{member.endpoint}: its database has {size}, no alarm"))
    return found


def check_clock(config: EtcdConfig, timeout: float) -> list[Finding]:
    """Whether this machine's clock agrees with etcd's. Leases don't depend on it: certificates and ages do."""
    name = "clock"
    found = []
    for endpoint in config.endpoints:
        skew = read_clock(config, endpoint, timeout)
        if isinstance(skew, str):
            found.append(skipped(name, f"{endpoint}: {skew}"))
        elif abs(skew) > MAX_SKEW:
            way = "ahead of" if skew > 0 else "behind"
            message = f"{endpoint}: its clock is {abs(skew):.0f} s {way} this machine's"
            found.append(warning(name, message, "set both by NTP: certificates and the ages shown go by them"))
        else:
            found.append(ok(name, f"{endpoint}: its clock and this machine's agree within {MAX_SKEW:.0f} s"))
    return found


def _look(config: EtcdConfig, key: bytes, timeout: float) -> None:
    with EtcdClient(config) as client:
        client.range(key, prefix_end(key), keys_only=True, timeout=timeout)


def _open_to_all(config: EtcdConfig) -> Finding:
    if all(_is_on_loopback(endpoint) for endpoint in config.endpoints):
        return ok("auth", "not used, and all endpoints are on loopback: every user of this machine may do everything")
    message = "not used: everybody who reaches this etcd can read and write the memory of all agents"
    return warning("auth", message, "switch it on, and give agents users of their own")


def _is_on_loopback(endpoint: str) -> bool:
    host = endpoint.rpartition(":")[0].strip("[]")
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
