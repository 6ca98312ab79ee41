from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MetadataDecodeError
from trunkline.metadata.codec import decode, encode
from trunkline.metadata.head import without_sections
from trunkline.metadata.model import AgentMetadata
from trunkline.testing.strategies import agent_metadata


@given(agent_metadata(), st.binary(max_size=20))
def test_what_is_left_is_how_the_agent_is_reached(metadata: AgentMetadata, rest: bytes) -> None:
    """Exactly what an agent without memory writes; what follows the head is not looked at."""
    left = without_sections(encode(metadata))
    assert left == encode(AgentMetadata(metadata.agent, metadata.connections))
    assert decode(left).connections == metadata.connections
    assert without_sections(left + rest) == left


@given(st.binary(max_size=100))
def test_noise_is_a_decode_error(noise: bytes) -> None:
    with pytest.raises(MetadataDecodeError):
        without_sections(noise)
