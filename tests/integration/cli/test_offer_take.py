"""Offering and taking between real processes."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, Directory, open_store
from trunkline.metadata.key import MetadataKey

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.cli.conftest import Commands

MIB = 1 << 20


def stop(process: object, number: int = signal.SIGINT) -> tuple[int, str]:
    """End an offer as Ctrl-C does; return its status and what it said."""
    process.send_signal(number)  # type: ignore[attr-defined]
    _, said = process.communicate(timeout=60)  # type: ignore[attr-defined]
    return process.returncode, said  # type: ignore[attr-defined]


@pytest.mark.parametrize(("option", "number"), [((), signal.SIGINT), (("--mmap",), signal.SIGTERM)])
def test_a_file_arrives_and_the_offer_is_withdrawn(
    commands: Commands, tmp_path: Path, option: tuple[str, ...], number: int
) -> None:
    data = os.urandom(3 * MIB + 5)
    (tmp_path / "in").write_bytes(data)
    offering = commands.offer(tmp_path / "in", "weights", "--chunk-size", MIB, *option)
    taken = commands.take("weights", tmp_path / "out")
    assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "out").read_bytes() == data
    assert "verified" in taken.stderr
    status, said = stop(offering, number)
    assert status == 0, said
    assert said.endswith("withdrawn\n")
    assert commands.take("weights", tmp_path / "again", "--timeout", 0.1).returncode == 1
    assert set(tmp_path.iterdir()) == {tmp_path / "in", tmp_path / "out"}


def test_the_printed_command_takes_it(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "my file").write_bytes(b"data")
    offering = commands.start("offer", tmp_path / "my file", "--name", "it's", "--devices", "lo")
    assert offering.stdout is not None
    words = shlex.split(offering.stdout.readline())
    (tmp_path / "there").mkdir()
    for name in ("NIXL_ETCD_ENDPOINTS", "NIXL_ETCD_NAMESPACE"):
        del commands.environment[name]
    taken = commands.run(*words[1:], "--devices", "lo", cwd=tmp_path / "there")
    assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "there" / "my file").read_bytes() == b"data"


def test_a_directory_arrives_with_all_that_is_empty(commands: Commands, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "d" / "empty").mkdir(parents=True)
    (source / "nil").touch()
    for number in range(40):
        (source / "d" / f"{number}").write_bytes(os.urandom(1000 * number))
    (source / "link").symlink_to("/etc/passwd")
    offering = commands.offer(source, "tree", "--chunk-size", 4096)
    taken = commands.take("tree", tmp_path / "out")
    assert taken.returncode == 0, taken.stderr

    def content(root: Path) -> dict[str, bytes | None]:
        return {
            str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
            for path in root.rglob("*")
            if not path.is_symlink()
        }

    assert content(tmp_path / "out") == content(source)
    assert "skipped 'link'" in stop(offering)[1]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_empty_arrives_empty(commands: Commands, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in"
    source.touch() if kind == "file" else source.mkdir()
    commands.offer(source, "nothing")
    taken = commands.take("nothing", tmp_path / "out")
    assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "out").is_dir() == (kind == "directory")


def test_a_safetensors_file_is_also_there_tensor_by_tensor(
    commands: Commands, tmp_path: Path, etcd_endpoint: str, namespace: str
) -> None:
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    header = json.dumps(
        {
            "manifest": {"dtype": "U8", "shape": [1], "data_offsets": [48, 49]},
            "model.weight": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
        }
    ).encode()
    content = len(header).to_bytes(8, "little") + header + weights.tobytes() + b"x"
    (tmp_path / "m.safetensors").write_bytes(content)
    offering = commands.offer(tmp_path / "m.safetensors", "model")
    with Agent("reader", store=etcd_endpoint, namespace=namespace, devices="lo") as agent:
        peer = agent.fetch("model")
        mine = np.zeros((3, 4), np.float32)
        remote = peer["model.weight"]
        assert (remote.dtype, remote.shape) == ("F32", (3, 4))
        agent.read(remote, into=agent.register(mine)).wait()
        np.testing.assert_array_equal(mine, weights)
    assert commands.take("model", tmp_path / "out").returncode == 0
    assert (tmp_path / "out").read_bytes() == content
    assert "already offered as 'manifest'" in stop(offering)[1]


def test_several_take_at_once(commands: Commands, tmp_path: Path) -> None:
    data = os.urandom(8 * MIB)
    (tmp_path / "in").write_bytes(data)
    # They wait for the offer: it comes after them.
    takers = [
        commands.start("take", "late", "-o", tmp_path / f"out-{number}", "--devices", "lo", "--timeout", 60)
        for number in range(3)
    ]
    commands.offer(tmp_path / "in", "late", "--chunk-size", MIB)
    for number, taker in enumerate(takers):
        _, said = taker.communicate(timeout=120)
        assert taker.returncode == 0, said
        assert (tmp_path / f"out-{number}").read_bytes() == data


def test_a_missing_file_is_refused_before_anything_is_claimed(commands: Commands, tmp_path: Path) -> None:
    offering = commands.run("offer", tmp_path / "none", "--name", "x")
    assert offering.returncode == 1
    assert offering.stderr == f"trunkline: {tmp_path / 'none'} can't be read: No such file or directory\n"


def test_an_unknown_name_names_similar_ones(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x")
    commands.offer(tmp_path / "in", "weights-1")
    taken = commands.take("weight-1", tmp_path / "out", "--timeout", 0.2)
    assert taken.returncode == 1
    assert "'weights-1'" in taken.stderr
    assert "Traceback" not in taken.stderr


def test_an_agent_that_offers_no_files(commands: Commands, tmp_path: Path, etcd_endpoint: str, namespace: str) -> None:
    with Agent("engine", store=etcd_endpoint, namespace=namespace, devices="lo") as agent:
        agent.register(bytearray(8), name="kv")
        agent.publish()
        taken = commands.take("engine", tmp_path / "out")
    assert taken.returncode == 1
    assert "offers no files" in taken.stderr


def test_a_hostile_manifest_writes_nothing(
    commands: Commands, tmp_path: Path, etcd_endpoint: str, namespace: str
) -> None:
    manifest = {
        "format": 1,
        "min_reader": 1,
        "is_directory": True,
        "files": [{"path": "../evil", "size": 0, "digests": ""}],
        "chunk_size": MIB,
        "total": 0,
    }
    with Agent("evil", store=etcd_endpoint, namespace=namespace, devices="lo") as agent:
        agent.register(bytearray(json.dumps(manifest).encode()), name="manifest")
        agent.publish()
        taken = commands.take("evil", tmp_path / "out")
    assert taken.returncode == 1
    assert "is not a plain relative path" in taken.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_only_by_force(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"new")
    (tmp_path / "out").write_bytes(b"old")
    commands.offer(tmp_path / "in", "f")
    refused = commands.take("f", tmp_path / "out")
    assert (refused.returncode, (tmp_path / "out").read_bytes()) == (1, b"old")
    assert "--force" in refused.stderr
    assert commands.take("f", tmp_path / "out", "--force").returncode == 0
    assert (tmp_path / "out").read_bytes() == b"new"


def test_a_mapped_file_that_changes_is_refused_by_name_and_offset(commands: Commands, tmp_path: Path) -> None:
    data = bytes(3 * MIB)
    (tmp_path / "in").write_bytes(data)
    commands.offer(tmp_path / "in", "f", "--mmap", "--chunk-size", MIB)
    with (tmp_path / "in").open("r+b") as file:
        file.seek(MIB + 7)
        file.write(b"changed")
    taken = commands.take("f", tmp_path / "out")
    assert taken.returncode == 1
    assert f"in: the 1,048,576 bytes at offset {MIB:,}" in taken.stderr
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_full_keeps_what_was_verified(commands: Commands, tmp_path: Path) -> None:
    data = os.urandom(8 * MIB)
    (tmp_path / "in").write_bytes(data)
    commands.offer(tmp_path / "in", "f", "--chunk-size", MIB)

    def limit() -> None:  # a limit on the size of files stands for the full disk: tests can't mount one
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))

    commands.environment["UCX_TLS"] = "tcp"  # whose shared memory would fall under the limit, too
    taken = commands.run("take", "f", "-o", tmp_path / "out", "--devices", "lo", preexec_fn=limit)
    assert taken.returncode == 1
    assert "File too large" in taken.stderr
    assert "take again once that is mended" in taken.stderr
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.trunkline-part").exists()
    taken = commands.take("f", tmp_path / "out")
    assert taken.returncode == 0, taken.stderr
    assert "were there already" in taken.stderr
    assert (tmp_path / "out").read_bytes() == data


def test_without_a_store_the_machines_own_is_used(commands: Commands, tmp_path: Path) -> None:
    del commands.environment["NIXL_ETCD_ENDPOINTS"]
    commands.environment["XDG_RUNTIME_DIR"] = str(tmp_path)
    (tmp_path / "in").write_bytes(b"data")
    offering = commands.offer(tmp_path / "in", "local")
    taken = commands.take("local", tmp_path / "out")
    assert taken.returncode == 0, taken.stderr
    assert "using the etcd of this machine and user" in taken.stderr
    assert "on this machine only" in stop(offering)[1]


def test_etcd_prints_its_endpoint_and_ends_in_order(commands: Commands) -> None:
    server = commands.start("etcd")
    assert server.stdout is not None
    assert server.stdout.readline().startswith("http://127.0.0.1:")
    assert stop(server)[0] == 0


def test_an_offer_comes_back_after_its_lease_was_lost_and_ends_when_its_name_was_taken(
    commands: Commands, tmp_path: Path, etcd_endpoint: str, namespace: str
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    offering = commands.offer(tmp_path / "file", "lonely", "--ttl", "2")
    with open_store(etcd_endpoint) as store:
        entry, _ = store.get(MetadataKey(namespace, "lonely").presence, timeout=10)
        assert entry is not None
        store.revoke(entry.lease, timeout=10)
        directory = Directory(store, namespace=namespace)
        assert directory.fetch("lonely", timeout=60).metadata
        with directory.open_publisher("lonely", incarnation="1" * 32, takeover=True, timeout=60):
            _, errors = offering.communicate(timeout=60)
    assert offering.returncode == 1
    assert "nobody finds 'lonely' any more" in errors
