"""The least that has to be done in NIXL for a new version of a peer."""

from __future__ import annotations

import logging

import pytest
from tests.unit.nixl.fake_agent import FakeAgent, metadata, nixlNotAllowedError

from trunkline.directory.publication import Publication
from trunkline.directory.view import AgentListing
from trunkline.errors import BackendError, MetadataDecodeError, MetadataMismatchError
from trunkline.metadata.presence import LabelRecord, Presence, content_record
from trunkline.nixl.remote_agents import RemoteAgents

ONE, TWO = "1" * 32, "2" * 32


def publication(
    ranges: dict[int, bytes],
    *,
    generation: int = 1,
    incarnation: str | None = ONE,
    connection: bytes | None = b"address",
    label: str = "metadata",
    name: str = "peer",
) -> Publication:
    data = metadata("peer", ranges, connection)
    presence = None
    if incarnation is not None:
        content = content_record(data)
        presence = Presence(
            incarnation=incarnation,
            labels={label: LabelRecord(content.size, content.sha256, generation)},
            attributes={"number": str(generation)},
        )
    return Publication(name, label, data, None, presence, generation)


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent("me")


@pytest.fixture
def remote(agent: FakeAgent) -> RemoteAgents:
    return RemoteAgents("me", agent)


def test_a_peer_is_added_once(agent: FakeAgent, remote: RemoteAgents) -> None:
    peer = remote.load(publication({1: b"a"}))
    assert (peer.name, peer.incarnation, peer.labels, peer.load) == ("peer", ONE, ("metadata",), 1)
    assert remote.peers() == {"peer": peer}
    assert remote.peer("other") is None
    assert agent.asked == ["add peer"]
    assert remote.generation("peer", "metadata") == 1
    assert remote.generation("peer", "x") is remote.generation("other", "metadata") is None


def test_what_is_added_is_added(agent: FakeAgent, remote: RemoteAgents) -> None:
    remote.load(publication({1: b"a"}))
    peer = remote.load(publication({1: b"a", 2: b"b"}, generation=2))
    assert agent.asked == ["add peer", "add peer"]
    assert agent.loaded == {"peer": {1: b"a", 2: b"b"}}
    assert (peer.load, peer.attributes) == (1, {"number": "2"})


@pytest.mark.parametrize("now", [{2: b"b"}, {1: b"longer", 2: b"b"}, {}], ids=["taken back", "another key", "nothing"])
def test_what_was_taken_back_or_changed_takes_a_removal(
    agent: FakeAgent, remote: RemoteAgents, now: dict[int, bytes]
) -> None:
    remote.load(publication({1: b"a", 2: b"b"}))
    peer = remote.load(publication(now, generation=2))
    assert agent.asked == ["add peer", "remove peer", "add peer"]
    assert agent.loaded == {"peer": now}
    assert peer.load == 2


def test_another_incarnation_always_takes_a_removal(agent: FakeAgent, remote: RemoteAgents) -> None:
    remote.load(publication({1: b"a"}))
    peer = remote.load(publication({1: b"a", 2: b"b"}, incarnation=TWO))
    assert agent.asked == ["add peer", "remove peer", "add peer"]
    assert (peer.incarnation, peer.load) == (TWO, 2)


def test_a_nixl_agent_that_was_restarted_shows_by_its_connection_info(agent: FakeAgent, remote: RemoteAgents) -> None:
    remote.load(publication({1: b"a"}, incarnation=None))
    assert remote.load(publication({1: b"a", 2: b"b"}, incarnation=None)).load == 1
    assert remote.load(publication({1: b"a", 2: b"b"}, incarnation=None, connection=b"elsewhere")).load == 2
    assert agent.asked == ["add peer", "add peer", "remove peer", "add peer"]


def test_labels_add_up_and_go_one_by_one(agent: FakeAgent, remote: RemoteAgents) -> None:
    remote.load(publication({1: b"a"}, label="one"))
    remote.load(publication({1: b"a"}, label="same"))
    peer = remote.load(publication({2: b"b"}, label="two", connection=None))
    assert peer.labels == ("one", "same", "two")
    remote.drop_label("peer", "one")  # all that it offers is in "same" too
    assert agent.asked == ["add peer"] * 3
    remote.drop_label("peer", "two")
    assert agent.asked[3:] == ["remove peer", "add peer"]
    assert agent.loaded == {"peer": {1: b"a"}}
    remote.drop_label("peer", "none")
    remote.drop_label("peer", "same")
    assert agent.asked[5:] == ["remove peer"]
    assert remote.peers() == {}


def test_connection_info_is_loaded_first(agent: FakeAgent, remote: RemoteAgents) -> None:
    remote.load(publication({1: b"a"}, label="all"))
    remote.load(publication({2: b"b", 3: b"c"}, label="part", connection=None))
    remote.load(publication({1: b"a"}, label="all"))
    remote.load(publication({3: b"c"}, label="part", connection=None))
    assert agent.loaded == {"peer": {1: b"a", 3: b"c"}}


def test_what_the_application_had_loaded_itself_is_replaced(agent: FakeAgent, remote: RemoteAgents) -> None:
    agent.add_remote_agent(metadata("peer", {1: b"a"}, b"of a run before"))
    assert remote.load(publication({1: b"a"})).load == 1
    assert agent.asked == ["add peer", "add peer", "remove peer", "add peer"]


def test_an_update_that_is_refused_for_no_reason_of_ours(agent: FakeAgent, remote: RemoteAgents) -> None:
    """As when the application removed the peer, and loaded something else under its name."""
    remote.load(publication({1: b"a"}))
    agent.loaded["peer"][2] = b"unexpected"
    assert remote.load(publication({1: b"a", 2: b"b"}, generation=2)).load == 2
    assert agent.loaded == {"peer": {1: b"a", 2: b"b"}}


def test_a_peer_that_is_refused_is_not_loaded(agent: FakeAgent, remote: RemoteAgents) -> None:
    remote.load(publication({1: b"a"}))

    def refuse(name: str) -> None:
        raise nixlNotAllowedError("NIXL_ERR_BACKEND")

    agent.refuses = refuse
    with pytest.raises(BackendError, match=r"can't load peer 'peer': nixlNotAllowedError: NIXL_ERR_BACKEND") as raised:
        remote.load(publication({1: b"a"}, incarnation=TWO))
    assert isinstance(raised.value.__cause__, nixlNotAllowedError)
    assert not remote.peers()
    assert not agent.loaded
    agent.refuses = lambda name: None
    assert remote.load(publication({1: b"a"}, incarnation=TWO)).load == 2


def test_a_removal_that_fails_is_logged(
    agent: FakeAgent, remote: RemoteAgents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: str) -> None:
        raise nixlNotAllowedError("NIXL_ERR_UNKNOWN")

    remote.load(publication({1: b"a"}))
    monkeypatch.setattr(agent, "remove_remote_agent", fail)
    with caplog.at_level(logging.WARNING):
        remote.remove("peer")
    assert "can't remove peer 'peer': nixlNotAllowedError: NIXL_ERR_UNKNOWN" in caplog.text
    assert remote.peers() == {}


def test_bytes_that_are_not_what_they_should_be_never_reach_nixl(agent: FakeAgent, remote: RemoteAgents) -> None:
    good = publication({1: b"a"}, incarnation=None)
    with pytest.raises(MetadataDecodeError):
        remote.load(Publication("peer", "metadata", good.metadata[:-1], None, None, 1))
    with pytest.raises(MetadataMismatchError, match="published as 'other' is that of agent 'peer'"):
        remote.load(publication({1: b"a"}, name="other"))
    with pytest.raises(MetadataMismatchError, match="its own metadata"):
        remote.load(Publication("me", "metadata", metadata("me", {}), None, None, 1))
    assert agent.asked == []


def test_which_incarnation_is_loaded(remote: RemoteAgents) -> None:
    ours, nixl = AgentListing("peer", ONE), AgentListing("peer", "17", is_nixl=True)
    assert not remote.is_loaded(ours)
    remote.load(publication({1: b"a"}))
    assert remote.is_loaded(ours)
    assert not remote.is_loaded(AgentListing("peer", TWO))
    remote.update(AgentListing("peer", ONE, attributes={"role": "decode"}))
    assert remote.peers()["peer"].attributes == {"role": "decode"}
    remote.load(publication({1: b"a"}, incarnation=None))
    assert remote.is_loaded(nixl)
    assert not remote.is_loaded(ours)
    remote.update(nixl)
    remote.update(AgentListing("other", ONE))
    assert remote.peers()["peer"].attributes == {}
