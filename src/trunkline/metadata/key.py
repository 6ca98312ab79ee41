"""Where an agent's metadata lies in a store: keys as NIXL builds them, and ours beside them.

    <namespace>/<agent>/            marker: the agent is there (NIXL's peers watch it)
    <namespace>/<agent>/<label>     metadata
    <namespace>/.presence/<agent>   ours: who the agent is and what it published
    <namespace>/.catalog/<agent>    ours: names, shapes and dtypes of what it offers
    <namespace>/.chunks/<agent>/<directory>/<number>
                                    ours: parts of metadata or a catalog too large for one value

Every prefix of an agent ends in a slash, so ``a`` never matches ``ab``; names hold no slash, so it never
matches ``a/b``. The forms are NIXL's (namespace + ``/`` + agent + ``/`` + label).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from unicodedata import category

from trunkline.errors import ConfigurationError

DEFAULT_NAMESPACE = "/nixl/agents"
NIXL_NAMESPACE = "/nixl/agents/"
"""What NIXL uses when none is set; its keys then hold a double slash."""

DEFAULT_LABEL = "metadata"
"""The label of an agent's full metadata."""

MAX_NAME_SIZE = 255
MAX_NAMESPACE_SIZE = 512

_PRESENCE = ".presence"
_CATALOG = ".catalog"
_CHUNKS = ".chunks"


def _flaw(text: str, max_size: int) -> str | None:
    """Return what is wrong with any part of a key, or None."""
    if text.isascii() and text.isprintable() and len(text) <= max_size:
        return None  # nearly always, and faster
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "can't be encoded as UTF-8"
    if size > max_size:
        return f"is {size} bytes long, more than {max_size}"
    if any(category(character) == "Cc" for character in text):
        return "holds a control character"
    return None


def _name_flaw(text: str) -> str | None:
    """Return what is wrong with an agent's name or a label, or None."""
    if not text:
        return "is empty"
    if text.startswith("."):
        return "starts with a dot"
    if "/" in text:
        return "holds a slash"
    return _flaw(text, MAX_NAME_SIZE)


def is_agent_name(text: str) -> bool:
    """Return whether an agent can have this name."""
    return _name_flaw(text) is None


def places(namespace: str) -> tuple[str, ...]:
    """Return the namespaces in which to look for agents of ``namespace``.

    It is that one alone, except for the default: Trunkline's and NIXL's differ by a slash, and both are searched.
    Keys of all places start with the first place and a slash.
    """
    if namespace in (DEFAULT_NAMESPACE, NIXL_NAMESPACE):
        return (DEFAULT_NAMESPACE, NIXL_NAMESPACE)
    return (namespace,)


def presence_prefix(namespace: str) -> str:
    """Return what the keys of all presence records of a namespace start with."""
    return f"{namespace}/{_PRESENCE}/"


def dotted_range(namespace: str) -> tuple[str, str]:
    """Return where the keys with dot-names begin, and where they end (exclusive): Trunkline's own, beside NIXL's."""
    return f"{namespace}/.", f"{namespace}//"  # a slash comes right after a dot


def agent_of(namespace: str, key: str) -> str | None:
    """Return the agent to which a key belongs (by marker, label or presence), or None.

    Keys of deeper namespaces, of agents with impossible names and of the catalog are nobody's.
    """
    owner, slash, rest = key.removeprefix(f"{namespace}/").partition("/")
    if not slash or not key.startswith(f"{namespace}/") or "/" in rest:
        return None
    name = rest if owner == _PRESENCE else owner
    return name if is_agent_name(name) else None


class KeyKind(StrEnum):
    """What a key of an agent is for."""

    MARKER = "marker"
    LABEL = "label"
    PRESENCE = "presence"
    CATALOG = "catalog"
    CHUNK = "chunk"


_OWN_KINDS = {_PRESENCE: KeyKind.PRESENCE, _CATALOG: KeyKind.CATALOG, _CHUNKS: KeyKind.CHUNK}


def classify(namespace: str, key: str) -> tuple[KeyKind, str, str] | None:
    """Return what a key of a namespace is for, its agent, and its label (or the rest of a chunk's key).

    None means that it is nobody's: of another or a deeper namespace, or of an agent with an impossible name.
    """
    owner, slash, rest = key.removeprefix(f"{namespace}/").partition("/")
    if not slash or not key.startswith(f"{namespace}/"):
        return None
    kind = _OWN_KINDS.get(owner)
    if kind is None:
        kind, name, part = (KeyKind.LABEL if rest else KeyKind.MARKER), owner, rest
        is_deeper = "/" in rest
    else:
        name, slash, part = rest.partition("/")
        is_deeper = bool(slash) != (kind is KeyKind.CHUNK)
    return (kind, name, part) if is_agent_name(name) and not is_deeper else None


@dataclass(frozen=True, slots=True)
class MetadataKey:
    """The key of one label of one agent, and from it the agent's other keys. ``str()`` gives the key itself.

    Attributes:
        namespace: Key prefix of the deployment, used as given; starts with a slash, at most 512 bytes.
        agent: The agent's name: not empty, no leading dot, no slash, no control character, at most 255 bytes.
        label: The part of the agent's metadata; the same rules.

    Raises:
        ConfigurationError: A part breaks its rules.
    """

    namespace: str
    agent: str
    label: str = DEFAULT_LABEL

    def __post_init__(self) -> None:
        flaw = _flaw(self.namespace, MAX_NAMESPACE_SIZE)
        if flaw is None and not self.namespace.startswith("/"):
            flaw = "does not start with a slash"
        for what, text, wrong in (
            ("namespace", self.namespace, flaw),
            ("agent name", self.agent, _name_flaw(self.agent)),
            ("label", self.label, _name_flaw(self.label)),
        ):
            if wrong is not None:
                raise ConfigurationError(f"{what} {text[:80]!r} {wrong}", **{what.replace(" ", "_"): text})

    @classmethod
    def parse(cls, namespace: str, key: str) -> MetadataKey | None:
        """Return what ``str()`` of it gave, or None if ``key`` is no metadata key of this namespace."""
        agent = agent_of(namespace, key)
        if agent is None:
            return None
        label = key.removeprefix(f"{namespace}/{agent}/")
        return None if label == key or _name_flaw(label) else cls(namespace, agent, label)

    def __str__(self) -> str:
        return self.agent_prefix + self.label

    @property
    def agent_prefix(self) -> str:
        """What the keys of all labels of the agent start with."""
        return f"{self.namespace}/{self.agent}/"

    @property
    def marker(self) -> str:
        """The empty key that announces the agent to NIXL; it equals the prefix."""
        return self.agent_prefix

    @property
    def presence(self) -> str:
        return f"{self.namespace}/{_PRESENCE}/{self.agent}"

    @property
    def catalog(self) -> str:
        return f"{self.namespace}/{_CATALOG}/{self.agent}"

    @property
    def chunks_prefix(self) -> str:
        """What the keys of all chunks of the agent start with."""
        return f"{self.namespace}/{_CHUNKS}/{self.agent}/"

    def chunk(self, directory: str, number: int) -> str:
        """Return the key of one chunk of a content."""
        return f"{self.chunks_prefix}{directory}/{number}"
