"""Calls of NIXL's own tests (``test/python/test_nixl_api.py``) that no test of ours made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.nixl import _bindings, nixl_agent, nixl_agent_config, nixl_thread_sync_t

if TYPE_CHECKING:
    from trunkline.nixl.agent_config import nixlAgentConfig


@pytest.mark.parametrize("mode", [None, *nixl_thread_sync_t])
@pytest.mark.parametrize("listens", [True, False])
def test_the_low_level_agent_can_be_stood_in_for(
    monkeypatch: pytest.MonkeyPatch, mode: nixl_thread_sync_t | None, listens: bool
) -> None:
    made = []
    real = _bindings.nixlAgent

    def spy(name: str, config: nixlAgentConfig) -> _bindings.nixlAgent:
        made.append(config.syncMode)
        return real(name, config)

    monkeypatch.setattr(_bindings, "nixlAgent", spy)
    config = nixl_agent_config(sync_mode=mode, enable_listen_thread=listens, listen_port=0, backends=[])
    nixl_agent("a", config).close()
    default = nixl_thread_sync_t.NIXL_THREAD_SYNC_STRICT if listens else nixl_thread_sync_t.NIXL_THREAD_SYNC_NONE
    assert made == [(mode or default).value]


def test_a_bad_sync_mode_is_told_in_nixl_s_words() -> None:
    with pytest.raises(TypeError, match="sync_mode must be a nixl_thread_sync_t"):
        nixl_agent_config(sync_mode=1)  # type: ignore[arg-type]
