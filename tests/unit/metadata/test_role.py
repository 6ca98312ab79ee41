from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.errors import ConfigurationError
from trunkline.metadata.key import DEFAULT_NAMESPACE, NIXL_NAMESPACE, MetadataKey, places
from trunkline.metadata.role import Access, Permission, Role, permissions
from trunkline.testing.strategies import agent_names

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMESPACES = ("/prod", "/team/prod", DEFAULT_NAMESPACE, NIXL_NAMESPACE, "/")


def may(granted: Sequence[Permission], access: Access, key: str) -> bool:
    """Return whether a key may be read or written, as etcd decides it: bytes are compared."""
    sought = key.encode()
    for each in granted:
        is_in = sought == each.key.encode() if each.end is None else each.key.encode() <= sought < each.end.encode()
        if is_in and each.access in {access, Access.READWRITE}:
            return True
    return False


def own_keys(namespace: str, name: str) -> tuple[list[str], list[str]]:
    """Return an agent's keys that NIXL knows, and those that only Trunkline has, in every place."""
    keys = [MetadataKey(place, name) for place in places(namespace)]
    shared = [text for key in keys for text in (key.marker, str(key), f"{key.agent_prefix}part")]
    records = [text for key in keys for text in (key.presence, key.catalog, f"{key.chunks_prefix}1/0")]
    return shared, records


def outside(namespace: str) -> list[str]:
    first = places(namespace)[0]
    neighbours = [first, f"{first}x/a/metadata", f"{first}0", f"{first}.", "0", "zoo/a/metadata"]
    return [*neighbours, *(["/dev/a/metadata"] if namespace != "/" else [])]


@pytest.mark.parametrize("namespace", NAMESPACES)
@settings(max_examples=20)
@given(name=agent_names, other=agent_names)
def test_what_each_role_may_do(namespace: str, name: str, other: str) -> None:
    shared, records = own_keys(namespace, name)
    theirs, their_records = own_keys(namespace, other)
    everything = [*shared, *records]
    for role, may_write, may_not_write, may_read, may_not_read in (
        (Role.AGENT, everything, [], everything, []),
        (Role.OPERATOR, everything, [], everything, []),
        (Role.OBSERVER, [], everything, everything, []),
        (Role.NIXL, shared, records, shared, records),
    ):
        granted = permissions(role, namespace)
        assert all(may(granted, Access.WRITE, key) for key in may_write)
        assert not any(may(granted, Access.WRITE, key) for key in [*may_not_write, *outside(namespace)])
        assert all(may(granted, Access.READ, key) for key in may_read)
        assert not any(may(granted, Access.READ, key) for key in [*may_not_read, *outside(namespace)])
    bound = permissions(Role.AGENT, namespace, [name.replace("*", "-")])
    shared, records = own_keys(namespace, name.replace("*", "-"))
    assert all(may(bound, Access.WRITE, key) for key in [*shared, *records])
    assert all(may(bound, Access.READ, key) for key in [*theirs, *their_records])
    if other != name.replace("*", "-"):
        assert not any(may(bound, Access.WRITE, key) for key in [*theirs, *their_records, *outside(namespace)])
    bound = permissions(Role.NIXL, namespace, [name.replace("*", "-")])
    assert all(may(bound, Access.WRITE, key) for key in shared)
    assert not any(may(bound, access, key) for key in [*records, *their_records] for access in Access)
    assert all(may(bound, Access.READ, key) for key in theirs)


@given(suffix=st.text("abc-.9", max_size=4))
def test_a_star_stands_for_names_that_start_so(suffix: str) -> None:
    granted = permissions(Role.AGENT, "/prod", ["decode-*", "solo"])
    for name in (f"decode-{suffix or '0'}", "solo"):
        shared, records = own_keys("/prod", name)
        assert all(may(granted, Access.WRITE, key) for key in [*shared, *records])
    for name in ("decode", "decodes", "decod", "solo2", "so"):
        shared, records = own_keys("/prod", name)
        assert not any(may(granted, Access.WRITE, key) for key in [*shared, *records])


def test_prefixes_are_known() -> None:
    assert permissions(Role.OBSERVER, "/prod") == [Permission(Access.READ, "/prod/", "/prod0")]
    assert permissions(Role.OBSERVER, "/prod")[0].is_prefix
    assert not any(each.is_prefix for each in permissions(Role.NIXL, "/prod"))
    assert not Permission(Access.READ, "/prod/").is_prefix


@pytest.mark.parametrize("name", ["*", "", "a/*", ".presence", ".*", "a\n", "x" * 256])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        permissions(Role.AGENT, "/prod", [name])


def test_roles_without_names_and_impossible_namespaces_are_refused() -> None:
    for role in (Role.OBSERVER, Role.OPERATOR):
        with pytest.raises(ConfigurationError, match=role):
            permissions(role, "/prod", ["a"])
    with pytest.raises(ConfigurationError, match="slash"):
        permissions(Role.AGENT, "prod")
