from __future__ import annotations

import msgspec
import pytest

from trunkline.demo.role import Task
from trunkline.errors import ConfigurationError

TASKS = msgspec.json.Decoder(Task)


def test_credentials_reach_the_roles_agent() -> None:
    task = Task(
        store="etcds://127.0.0.1:1",
        credentials="/nowhere/credentials.toml",
        namespace="/prod",
        model="llama-3.1-8b",
        blocks=2,
        devices="lo",
        step_timeout=1,
    )
    sent = TASKS.decode(msgspec.json.encode(task))
    with pytest.raises(ConfigurationError, match=r"/nowhere/credentials\.toml"):
        sent.open_agent("a")
