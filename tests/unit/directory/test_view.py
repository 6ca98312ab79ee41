"""What a listing says, whom it matches, and the view as a mapping."""

from __future__ import annotations

import pytest

from trunkline.directory.view import AgentListing, DirectoryView
from trunkline.metadata.presence import ContentRecord, LabelRecord, Presence, ProcessRecord

DIGEST = "ab" * 32


def listing(name: str = "prefill-0", **attributes: str) -> AgentListing:
    return AgentListing(name, "1" * 32, attributes)


def test_a_listing_says_what_the_record_says() -> None:
    presence = Presence(
        incarnation="1" * 32,
        process=ProcessRecord(host="node-7", pid=41),
        software="trunkline 0",
        backends=("UCX",),
        attributes={"role": "prefill"},
        state="draining",
        ttl=12.0,
        labels={"metadata": LabelRecord(5, DIGEST, 3)},
        catalog=ContentRecord(7, DIGEST),
    )
    found = AgentListing.of_presence("prefill-0", "/prod", presence, 99)
    assert found == AgentListing(
        name="prefill-0",
        incarnation="1" * 32,
        attributes={"role": "prefill"},
        state="draining",
        labels={"metadata": 3},
        catalog=DIGEST,
        host="node-7",
        pid=41,
        software="trunkline 0",
        backends=("UCX",),
        ttl=12.0,
        revision=99,
        namespace="/prod",
    )
    assert AgentListing.of_presence("a", "/prod", Presence(incarnation="1" * 32), 1).catalog == ""
    newer = Presence(incarnation="", min_reader=1_000)
    assert not AgentListing.of_presence("a", "/prod", newer, 1).is_readable


@pytest.mark.parametrize(
    ("pattern", "wanted", "matches"),
    [
        ("*", {}, True),
        ("prefill-?", {}, True),
        ("prefill-[0-3]", {"role": "prefill"}, True),
        ("PREFILL-0", {}, False),
        ("prefill", {}, False),
        ("*", {"role": "decode"}, False),
        ("*", {"role": "prefill", "zone": "a"}, False),
        ("decode-*", {"role": "prefill"}, False),
    ],
)
def test_name_and_all_attributes_have_to_match(pattern: str, wanted: dict[str, str], matches: bool) -> None:
    assert listing(role="prefill").matches(pattern, wanted) is matches


def test_a_view_is_a_mapping_that_nobody_changes_afterwards() -> None:
    known = {"a": listing("a"), "b": listing("b")}
    view = DirectoryView(known, age=1.25, is_synced=False)
    known.clear()
    assert list(view) == ["a", "b"]
    assert view["b"].name == "b"
    assert view.get("c") is None
    assert (view.age, view.is_synced) == (1.25, False)
    assert repr(view) == "<DirectoryView of 2 agents, 1.2 s old>"
    with pytest.raises(TypeError):
        view["c"] = listing("c")  # type: ignore[index]
