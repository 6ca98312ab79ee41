"""Registering an offer's files, manifest and tensors with an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.errors import MetadataDecodeError
from trunkline.memory.typed import typed
from trunkline.offer.manifest import FILE_GROUP, MANIFEST, encode_manifest
from trunkline.offer.safetensors import parse_header

if TYPE_CHECKING:
    import mmap

    from trunkline.agent.agent import Agent
    from trunkline.offer.manifest import Manifest

_MAX_TENSOR_NAME = 1024


def register_offer(agent: Agent, manifest: Manifest, contents: list[mmap.mmap | None]) -> list[str]:
    """Register everything an offer consists of; publish afterwards. The agent keeps the memory alive.

    The tensors of ``.safetensors`` files are registered besides, each under its own name.

    Args:
        agent: Who offers; it must have registered nothing under these names.
        manifest: What :func:`~trunkline.offer.source.load_source` returned.
        contents: Likewise.

    Returns:
        What can't be had by its own name, and why, in words.

    Raises:
        MemoryRegistrationError: The backend refused.
    """
    members = {str(index): content for index, content in enumerate(contents) if content is not None}
    if members:
        agent.register(members, name=FILE_GROUP)
    agent.register(bytearray(encode_manifest(manifest)), name=MANIFEST)
    taken = {MANIFEST, FILE_GROUP, *(f"{FILE_GROUP}/{index}" for index in members)}
    notes: list[str] = []
    for entry, content in zip(manifest.files, contents, strict=True):
        if entry.path.endswith(".safetensors"):
            notes += _register_tensors(agent, entry.path, memoryview(content or b""), taken)
    return notes


def _register_tensors(agent: Agent, path: str, content: memoryview, taken: set[str]) -> list[str]:
    try:
        tensors = parse_header(content)
    except MetadataDecodeError as error:
        return [f"{path}: offered as a file only: {error}"]
    notes = []
    for tensor in tensors:
        if tensor.name in taken:
            notes.append(f"{path}: another tensor is already offered as {tensor.name!r}")
        elif not 1 <= len(tensor.name) <= _MAX_TENSOR_NAME:
            notes.append(f"{path}: a tensor's name has {len(tensor.name)} characters")
        elif tensor.start == tensor.end:
            notes.append(f"{path}: tensor {tensor.name!r} is empty")
        else:
            taken.add(tensor.name)
            agent.register(typed(content[tensor.start : tensor.end], tensor.dtype, tensor.shape), name=tensor.name)
    return notes
