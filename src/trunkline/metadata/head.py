"""The head of metadata: whose it is, and how that agent is reached. :mod:`trunkline.metadata.codec` has the rest."""

from __future__ import annotations

from trunkline.metadata.container import ContainerReader, pack_field, pack_number
from trunkline.metadata.key import MAX_NAME_SIZE, is_agent_name

MAX_BACKENDS = 64
"""The most connections in one agent's metadata; sections may be this many for each kind of memory."""


def without_sections(data: bytes) -> bytes:
    """Return metadata of the same agent that says how it is reached, and offers no memory. The rest is not looked at.

    Raises:
        MetadataDecodeError: ``data`` does not start as metadata does.
    """
    reader = ContainerReader(data, "metadata")
    read_agent(reader)
    read_connections(reader)
    return data[: reader.offset] + pack_field(b"", b"MemSection") + pack_number(b"nixlSecElms", 0)


def read_agent(reader: ContainerReader) -> str:
    """Return the agent's name."""
    start = reader.offset
    name = reader.read_text(b"Agent", max_size=MAX_NAME_SIZE)
    if not is_agent_name(name):
        raise reader.fault("Agent", start, f"no agent can be called {name!r}")
    return name


def read_connections(reader: ContainerReader) -> dict[str, bytes]:
    """Return connection info by backend."""
    connections: dict[str, bytes] = {}
    for _ in range(reader.read_number(b"Conns", max_value=MAX_BACKENDS)):
        start = reader.offset
        backend = read_backend(reader, b"t")
        if backend in connections:
            raise reader.fault("t", start, f"a second connection for backend {backend!r}")
        connections[backend] = reader.read(b"c", max_size=len(reader.data))
    return connections


def read_backend(reader: ContainerReader, tag: bytes) -> str:
    """Return the name of a backend."""
    start = reader.offset
    name = reader.read_text(tag, max_size=MAX_NAME_SIZE)
    if not name.isprintable():
        raise reader.fault(tag.decode(), start, f"no backend can be called {name!r}")
    return name
