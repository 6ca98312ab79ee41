from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import ConfigurationError
from trunkline.metadata.key import (
    DEFAULT_NAMESPACE,
    NIXL_NAMESPACE,
    KeyKind,
    MetadataKey,
    agent_of,
    classify,
    dotted_range,
    is_agent_name,
    places,
)

_PLAIN = st.characters(exclude_characters="/", exclude_categories=["Cc", "Cs"])
names = st.text(_PLAIN, min_size=1, max_size=60).filter(lambda text: not text.startswith("."))
namespaces = st.one_of(
    st.sampled_from([DEFAULT_NAMESPACE, NIXL_NAMESPACE, "/", "//"]),
    st.text(_PLAIN | st.just("/"), max_size=60).map(lambda text: f"/{text}"),
)


def test_keys_are_nixls() -> None:
    key = MetadataKey(DEFAULT_NAMESPACE, "decode-3")
    assert str(key) == "/nixl/agents/decode-3/metadata"
    assert key.agent_prefix == key.marker == "/nixl/agents/decode-3/"
    assert str(MetadataKey(NIXL_NAMESPACE, "decode-3", "conn_info_1")) == "/nixl/agents//decode-3/conn_info_1"


def test_our_own_keys_lie_under_names_no_agent_can_have() -> None:
    key = MetadataKey("/prod", "a")
    assert key.presence == "/prod/.presence/a"
    assert key.catalog == "/prod/.catalog/a"
    assert key.chunks_prefix == "/prod/.chunks/a/"
    assert not any(map(is_agent_name, (".presence", ".catalog", ".chunks")))
    first, end = dotted_range("/prod")
    assert all(first <= each < end for each in (key.presence, key.catalog, key.chunks_prefix))
    assert not any(first <= each < end for each in ("/prod/-a/", "/prod/a/", "/prod//", "/prod/0", "/prod/"))


@given(namespaces, names, names)
def test_parse_and_format_are_inverse(namespace: str, agent: str, label: str) -> None:
    key = MetadataKey(namespace, agent, label)
    assert MetadataKey.parse(namespace, str(key)) == key


@given(namespaces, names, st.text(max_size=30))
def test_what_parses_formats_to_itself(namespace: str, agent: str, rest: str) -> None:
    text = f"{namespace}/{agent}/{rest}"
    parsed = MetadataKey.parse(namespace, text)
    assert parsed is None or str(parsed) == text


@given(namespaces, names)
def test_marker_presence_and_labels_belong_to_the_agent_and_nothing_else_does(namespace: str, agent: str) -> None:
    key = MetadataKey(namespace, agent)
    assert (
        agent_of(namespace, key.marker) == agent_of(namespace, key.presence) == agent_of(namespace, str(key)) == agent
    )
    assert agent_of(namespace, key.catalog) is None
    assert agent_of(namespace, f"{key.chunks_prefix}0") is None
    assert MetadataKey.parse(namespace, key.marker) is None
    assert MetadataKey.parse(namespace, key.presence) is None


@given(namespaces, names, names)
def test_no_agent_matches_another(namespace: str, one: str, other: str) -> None:
    prefix = MetadataKey(namespace, one).agent_prefix
    assert str(MetadataKey(namespace, other)).startswith(prefix) == (one == other)
    longer = one + "x" if len(one.encode()) < 255 else one[:-1]
    assert not str(MetadataKey(namespace, longer)).startswith(prefix)


def test_a_deeper_namespace_is_not_an_agent() -> None:
    below = MetadataKey("/prod/a", "b")
    assert [agent_of("/prod", key) for key in (str(below), below.marker, below.presence)] == [None] * 3


@pytest.mark.parametrize(
    "key", ["/prod", "/prod/", "/prod/a", "/prod//", "/other/a/metadata", "/prodigy/a/metadata", ""]
)
def test_keys_of_nobody(key: str) -> None:
    assert agent_of("/prod", key) is None
    assert MetadataKey.parse("/prod", key) is None


def test_the_two_default_namespaces_don_t_mix() -> None:
    assert places(DEFAULT_NAMESPACE) == places(NIXL_NAMESPACE) == (DEFAULT_NAMESPACE, NIXL_NAMESPACE)
    assert places("/prod") == ("/prod",)
    for mine, other in ((DEFAULT_NAMESPACE, NIXL_NAMESPACE), (NIXL_NAMESPACE, DEFAULT_NAMESPACE)):
        key = MetadataKey(mine, "a")
        assert [agent_of(other, each) for each in (str(key), key.marker, key.presence)] == [None] * 3


@pytest.mark.parametrize(
    ("name", "flaw"),
    [
        ("", "empty"),
        (".", "dot"),
        (".presence", "dot"),
        ("a/b", "slash"),
        ("a\n", "control"),
        ("\x00", "control"),
        ("a\x7f", "control"),
        ("\x9b2J", "control"),
        ("\udc80", "UTF-8"),
        ("é" * 128, "256 bytes"),
    ],
)
def test_names_and_labels_that_are_not_possible(name: str, flaw: str) -> None:
    assert not is_agent_name(name)
    with pytest.raises(ConfigurationError, match=f"agent name .*{flaw}"):
        MetadataKey("/prod", name)
    with pytest.raises(ConfigurationError, match=f"label .*{flaw}"):
        MetadataKey("/prod", "a", name)


@pytest.mark.parametrize(
    ("namespace", "flaw"),
    [("", "slash"), ("prod", "slash"), ("/\udc80", "UTF-8"), ("/a\n", "control"), ("/" + "a" * 512, "513 bytes")],
)
def test_namespaces_that_are_not_possible(namespace: str, flaw: str) -> None:
    with pytest.raises(ConfigurationError, match=f"namespace .*{flaw}"):
        MetadataKey(namespace, "a")


def test_the_longest_names_are_possible() -> None:
    assert is_agent_name("é" * 127 + "a")
    MetadataKey("/" + "a" * 511, "a" * 255, "a" * 255)


@given(namespaces, names, names)
def test_each_key_of_an_agent_is_known_for_what_it_is(namespace: str, agent: str, label: str) -> None:
    key = MetadataKey(namespace, agent, label)
    assert classify(namespace, str(key)) == (KeyKind.LABEL, agent, label)
    assert classify(namespace, key.marker) == (KeyKind.MARKER, agent, "")
    assert classify(namespace, key.presence) == (KeyKind.PRESENCE, agent, "")
    assert classify(namespace, key.catalog) == (KeyKind.CATALOG, agent, "")
    assert classify(namespace, f"{key.chunks_prefix}{label}/0") == (KeyKind.CHUNK, agent, f"{label}/0")


@pytest.mark.parametrize(
    "key",
    [
        "/production/a/metadata",
        "/prod",
        "/prod/a",
        "/prod/a/b/metadata",
        "/prod//a/metadata",
        "/prod/.presence/",
        "/prod/.presence/a/",
        "/prod/.presence/a/b",
        "/prod/.presence/.a",
        "/prod/.catalog/a/b",
        "/prod/.chunks/a",
        "/prod/.other/a",
        "/prod/a\x07b/metadata",
    ],
)
def test_other_keys_are_nobodys(key: str) -> None:
    assert classify("/prod", key) is None
