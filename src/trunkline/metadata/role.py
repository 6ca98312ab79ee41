"""What each kind of party needs of the keys under a namespace, as the ranges that etcd's roles are made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from trunkline.errors import ConfigurationError
from trunkline.metadata.key import MetadataKey, dotted_range, places

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Role(StrEnum):
    """A kind of party."""

    AGENT = "agent"
    """A Trunkline agent: reads everything under the namespace, writes what is its own."""
    OBSERVER = "observer"
    """Looks only: everything under the namespace."""
    OPERATOR = "operator"
    """Reads and deletes everything under the namespace."""
    NIXL = "nixl"
    """An agent of NIXL's own: as an agent, without the records that only Trunkline has a use for."""


NAMED_ROLES = frozenset({Role.AGENT, Role.NIXL})
"""Those that may be bound to names of agents."""


class Access(StrEnum):
    """What may be done with keys; etcd's own words."""

    READ = "read"
    WRITE = "write"
    READWRITE = "readwrite"


@dataclass(frozen=True, slots=True)
class Permission:
    """One entry of a role.

    Attributes:
        access: What may be done.
        key: With which key, or from which key on.
        end: Up to which key, exclusive; None for the one key.
    """

    access: Access
    key: str
    end: str | None = None

    @property
    def is_prefix(self) -> bool:
        """Whether it is about all keys that start with ``key``."""
        return self.end == _prefix_end(self.key)


def permissions(role: Role, namespace: str, names: Sequence[str] = ()) -> list[Permission]:
    """Return the least that a role needs.

    Both places are covered where the namespace is a default one (Trunkline's and NIXL's differ by a slash).

    Args:
        role: Which role.
        namespace: Key prefix of the deployment.
        names: Only for agents: the names they may have, ``decode-*`` for all that start so. Without names they may
            have any, and so each may write what the others published.

    Raises:
        ConfigurationError: The namespace or a name can't be; or names are given to a role that has none.
    """
    MetadataKey(namespace, "any")  # refuses what can't be
    searched = places(namespace)
    everything = f"{searched[0]}/"
    if names and role not in NAMED_ROLES:
        raise ConfigurationError(f"the role {role} is not bound to names of agents", role=str(role))
    if role is Role.OBSERVER:
        return [_prefix(Access.READ, everything)]
    if role is Role.OPERATOR or (role is Role.AGENT and not names):
        return [_prefix(Access.READWRITE, everything)]
    if role is Role.AGENT:
        own = [each for place in searched for name in names for each in _own(place, name, has_records=True)]
        return [_prefix(Access.READ, everything), *own]
    access = Access.READ if names else Access.READWRITE
    own = [each for place in searched for name in names for each in _own(place, name, has_records=False)]
    return [*_without_records(access, searched), *own]


def _own(place: str, name: str, *, has_records: bool) -> Iterator[Permission]:
    """Yield what an agent of that name writes in one place."""
    stem = name.removesuffix("*")
    key = MetadataKey(place, stem)  # refuses what can't be a name or the start of one
    if stem != name:
        yield _prefix(Access.WRITE, f"{place}/{stem}")
        if has_records:
            for prefix in (key.presence, key.catalog, key.chunks_prefix.removesuffix("/")):
                yield _prefix(Access.WRITE, prefix)
        return
    yield _prefix(Access.WRITE, key.agent_prefix)
    if has_records:
        yield Permission(Access.WRITE, key.presence)
        yield Permission(Access.WRITE, key.catalog)
        yield _prefix(Access.WRITE, key.chunks_prefix)


def _without_records(access: Access, searched: Iterable[str]) -> Iterator[Permission]:
    """Yield everything under a namespace but the keys with dot-names."""
    start = end = ""
    for place in searched:
        first, after = dotted_range(place)
        if not start:
            start, end = f"{place}/", _prefix_end(f"{place}/")
        yield Permission(access, start, first)
        start = after
    yield Permission(access, start, end)


def _prefix(access: Access, key: str) -> Permission:
    return Permission(access, key, _prefix_end(key))


def _prefix_end(key: str) -> str:
    """Return the first key after all that start with ``key``.

    Keys are compared as UTF-8; names can't hold the last of all characters, which is unassigned for ever.
    """
    return key[:-1] + chr(ord(key[-1]) + 1)
