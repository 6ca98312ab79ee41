"""The adapter over a stand-in for NVIDIA's agent, and an in-memory phone book."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest
from tests.unit.nixl.conftest import TTL, Bench, until
from tests.unit.nixl.fake_agent import FakeAgent, nixlNotAllowedError

from trunkline.backend.plugins.ucx import library
from trunkline.directory import Directory
from trunkline.directory.event import (
    NameConflict,
    PeerJoined,
    PeerLeft,
    PeerUpdated,
)
from trunkline.errors import (
    AgentNotFoundError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    ConfigurationError,
    ForkedError,
    NoStoreError,
    SupersededError,
    UnknownPeerError,
)
from trunkline.metadata.key import NIXL_NAMESPACE
from trunkline.nixl import NixlAdapter, NixlPeer, adapt
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from trunkline.directory import Publication


# -- publishing ------------------------------------------------------------------------------------------------


def test_what_it_publishes_is_nixls_own(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    revision = adapter.publish()
    assert adapter.publish() == revision  # nothing new, nothing written
    found = Directory(bench.store).fetch("me", timeout=5)
    assert (found.metadata, found.catalog, found.revision) == (agent.get_agent_metadata(), None, revision)
    assert found.presence is not None
    assert (found.presence.incarnation, found.presence.backends, found.presence.ttl) == (
        adapter.incarnation,
        ("UCX",),
        TTL,
    )
    agent.own[0x2000] = b"more"
    assert adapter.publish() > revision
    assert Directory(bench.store).fetch("me", timeout=5).metadata == agent.get_agent_metadata()


def test_by_default_it_publishes_where_nixl_looks(
    bench: Bench, adapter: NixlAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter.publish()
    assert bench.store.get(f"{NIXL_NAMESPACE}/me/metadata", timeout=5)[0] is not None
    monkeypatch.setenv("NIXL_ETCD_NAMESPACE", "/elsewhere")
    bench.adapt(FakeAgent("other")).publish()
    assert bench.store.get("/elsewhere/other/metadata", timeout=5)[0] is not None


def test_parts_of_the_metadata(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    agent.own[0x2000] = b"more"
    adapter.publish(label="part", descs=[0x2000], connection_info=True, backends=["UCX"])
    found = Directory(bench.store).fetch("me", label="part", timeout=5)
    assert found.metadata == agent.get_partial_agent_metadata([0x2000], True, [])
    for wrong in ({"label": "part"}, {"descs": [0x2000]}):
        with pytest.raises(ConfigurationError, match="give descs= with another label"):
            adapter.publish(**wrong)
    adapter.withdraw(label="part")
    with pytest.raises(AgentNotFoundError):
        Directory(bench.store).fetch("me", label="part", timeout=0.2)


def test_attributes(bench: Bench) -> None:
    adapter = bench.adapt(FakeAgent("me"), role="prefill")
    assert adapter.attributes == {"role": "prefill"}
    adapter.publish()
    adapter.update_attributes({"role": "decode"})
    presence = Directory(bench.store, namespace=NIXL_NAMESPACE).presence("me")
    assert presence is not None
    assert presence.attributes == adapter.attributes == {"role": "decode"}


def test_a_name_that_is_not_the_agents(bench: Bench, agent: FakeAgent) -> None:
    with pytest.raises(ConfigurationError, match="name='other': the NIXL agent is called 'me'"):
        adapt(agent, store=bench.store, name="other")
    del agent.name
    with pytest.raises(ConfigurationError, match="no attribute 'name'"):
        adapt(agent, store=bench.store)
    agent.name = b"me"  # type: ignore[assignment]
    agent.get_agent_metadata = FakeAgent("me").get_agent_metadata  # type: ignore[method-assign]
    with (
        adapt(agent, store=bench.store, name="other") as adapter,
        pytest.raises(ConfigurationError, match="the NIXL agent calls itself 'me'"),
    ):
        adapter.publish()


def test_what_is_no_agent_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="object is not a NIXL agent: it has no get_agent_metadata"):
        adapt(object(), store=bench.store)  # type: ignore[arg-type]


def test_without_a_store(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIXL_ETCD_ENDPOINTS", raising=False)
    with pytest.raises(NoStoreError, match="pass store="):
        adapt(agent)
    monkeypatch.setenv("NIXL_ETCD_ENDPOINTS", f"memory://{uuid.uuid4().hex}")
    with adapt(agent, ttl=7) as adapter:
        adapter.publish()


def test_what_nixl_can_not_say(adapter: NixlAdapter, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bytes:
        raise nixlNotAllowedError("NIXL_ERR_INVALID_PARAM")

    monkeypatch.setattr(agent, "get_agent_metadata", fail)
    with pytest.raises(BackendError, match=r"agent 'me': NIXL can't say its metadata: .*NIXL_ERR_INVALID_PARAM"):
        adapter.publish()


def test_a_name_that_is_taken_over(bench: Bench, adapter: NixlAdapter) -> None:
    with adapter.watch() as watch:
        bench.adapt(FakeAgent("me"), takeover=True).publish()
        seen = until(watch, NameConflict)
        while not seen[-1].is_lost:  # type: ignore[union-attr]
            seen = until(watch, NameConflict)
    assert adapter.lost is not None
    with pytest.raises(SupersededError):
        adapter.publish()


def test_a_lost_session_is_mended_without_a_call(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    adapter.publish()
    session = adapter._membership.publisher._holder.session
    assert session is not None
    bench.store.revoke(session.lease.id, timeout=1)
    eventually(lambda: adapter._membership.publisher.sessions == 2 and adapter.lost is None)
    assert Directory(bench.store).fetch("me", timeout=5).metadata == agent.get_agent_metadata()


# -- finding ---------------------------------------------------------------------------------------------------


def test_what_is_fetched_is_loaded(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    _, other = bench.peer(role="decode")
    peer = adapter.fetch("peer")
    assert peer == NixlPeer("peer", other.incarnation, {"role": "decode"}, ("metadata",), 1)
    assert adapter.peer("peer") == peer
    assert adapter.peers() == {"peer": peer}
    eventually(lambda: list(adapter.listings()) == ["peer"])
    assert agent.loaded == {"peer": {0x1000: b"key"}}
    adapter.fetch("peer")
    assert agent.asked == ["add peer", "add peer"]
    assert adapter.peer("peer").load == 1


def test_several_are_fetched_in_the_order_of_their_names(bench: Bench, adapter: NixlAdapter) -> None:
    for name in "ab":
        bench.adapt(FakeAgent(name)).publish()
    assert [peer.name for peer in adapter.fetch_many(["b", "a", "b"])] == ["b", "a", "b"]
    with pytest.raises(ConfigurationError, match="give a list of names"):
        adapter.fetch_many("ab")
    with pytest.raises(ConfigurationError, match="can't fetch itself"):
        adapter.fetch("me")


def test_nobody_of_that_name(adapter: NixlAdapter) -> None:
    with pytest.raises(AgentNotFoundError):
        adapter.fetch("peer", timeout=0)
    with pytest.raises(UnknownPeerError, match=r"no peer 'peer' loaded.*fetch\('peer'\)"):
        adapter.peer("peer")
    with pytest.raises(UnknownPeerError):
        adapter.unload("peer")


def test_a_peer_that_can_not_be_loaded_is_not_followed(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    def refuse(name: str) -> None:
        raise nixlNotAllowedError("NIXL_ERR_BACKEND")

    peer, other = bench.peer()
    agent.refuses = refuse
    with pytest.raises(BackendError, match="can't load peer 'peer'"):
        adapter.fetch("peer")
    agent.refuses = lambda name: None
    with adapter.watch() as watch:
        until(watch, PeerJoined)
        peer.own[0x2000] = b"more"
        other.publish()
        until(watch, PeerUpdated)
    assert adapter.peers() == {}


def test_an_unloaded_peer_is_not_loaded_again(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    bench.peer()
    adapter.fetch("peer")
    adapter.unload("peer")
    with adapter.watch() as watch:
        bench.peer(run=2)
        until(watch, PeerLeft)
        until(watch, PeerJoined)
    assert agent.loaded == {}


# -- ends ------------------------------------------------------------------------------------------------------


def test_closing_gives_the_name_up_and_leaves_nixl_alone(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    bench.peer()
    adapter.publish()
    adapter.fetch("peer")
    watch = adapter.watch()
    adapter.close(drain=0)
    adapter.close()
    assert Directory(bench.store).names() == ["peer"]
    assert agent.asked == ["add peer"]
    with pytest.raises(ClosedError):
        watch.next(0)
    for call in (adapter.publish, adapter.withdraw, adapter.watch, adapter.listings, lambda: adapter.fetch("peer")):
        with pytest.raises(ClosedError, match=r"call adapt\(\) again"):
            call()
    assert "closed" in repr(adapter)


def test_one_that_is_dropped_warns_and_is_closed(bench: Bench) -> None:
    with pytest.warns(ResourceWarning, match="NixlAdapter 'dropped', 0 peers> was dropped without close"):
        adapt(FakeAgent("dropped"), store=bench.store).publish()
    assert "dropped" not in Directory(bench.store).names()


def test_in_a_forked_child(adapter: NixlAdapter) -> None:
    adapter._after_fork()
    with pytest.raises(ForkedError):
        adapter.publish()
    adapter._is_forked = False
    adapter._closed = False


def test_a_fetch_that_ends_after_the_adapter(
    bench: Bench, adapter: NixlAdapter, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.peer()
    found = [Directory(bench.store).fetch("peer", timeout=5)]

    def find_and_close(*_: object) -> list[Publication]:
        adapter.close(drain=0)
        return found

    monkeypatch.setattr(adapter._membership, "fetch", find_and_close)
    with pytest.raises(ClosedError):
        adapter.fetch("peer")
    assert agent.asked == []


# -- UCX -------------------------------------------------------------------------------------------------------


def test_ours_beside_nvidias_is_refused(
    bench: Bench, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library.load_native()
    ours = library.library_path()
    assert ours is not None
    monkeypatch.setattr(library, "_mapped", lambda: [ours, tmp_path / "libucp-b39b3ed9.so.0.0.0"])
    with pytest.raises(BackendUnavailableError, match=r"two copies don't get along.*different processes"):
        adapt(agent, store=bench.store)
    monkeypatch.setattr(library, "_mapped", lambda: [ours])
    bench.adapt(agent)


@pytest.mark.parametrize("heavy", ["numpy", "grpc", "msgspec", "nixl_cu12", "trunkline.agent"])
def test_importing_loads_nothing_heavy(heavy: str) -> None:
    code = f"import sys, trunkline.nixl; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_using_it_loads_no_ucx() -> None:
    code = (
        "import sys\n"
        "from tests.unit.nixl.fake_agent import FakeAgent\n"
        "from trunkline.nixl import adapt\n"
        "with adapt(FakeAgent('a'), store='memory://x') as a, adapt(FakeAgent('b'), store='memory://x') as b:\n"
        "    a.publish()\n"
        "    b.fetch('a')\n"
        "    print(next(event.name for event in b.watch() if hasattr(event, 'name')))\n"
        "assert 'trunkline.backend.plugins.ucx._native' not in sys.modules\n"
        "assert 'libucp' not in open('/proc/self/maps').read()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "a\n"), done.stderr


def test_every_exported_name_is_there() -> None:
    import trunkline.nixl

    for name in trunkline.nixl.__all__:
        assert getattr(trunkline.nixl, name) is not None
    assert set(trunkline.nixl.__all__) <= set(dir(trunkline.nixl))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = trunkline.nixl.nothing
