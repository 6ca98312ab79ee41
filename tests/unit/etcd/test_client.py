from __future__ import annotations

from typing import Any

import pytest

from trunkline.etcd import request
from trunkline.etcd.client import EtcdClient
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.messages import TXN

READ, PUT, DELETE = request.read(b"a"), request.put(b"a", b""), request.delete(b"a")


@pytest.mark.parametrize(
    ("parts", "is_repeated"),
    [
        (([], [READ, READ]), True),
        (([], [READ, PUT]), False),
        (([], [DELETE]), False),
        (([], [READ], [PUT]), False),
        (([request.absent(b"a")], [PUT]), True),
    ],
)
def test_a_transaction_is_repeated_if_a_condition_guards_it_or_it_only_reads(
    monkeypatch: pytest.MonkeyPatch, parts: Any, is_repeated: bool
) -> None:
    client = EtcdClient(EtcdConfig.parse("etcd://127.0.0.1:1", environment={}))
    seen: list[bool] = []

    def call(*_: Any, repeat: bool, **__: Any) -> Any:
        seen.append(repeat)
        return TXN.response()

    monkeypatch.setattr(client._connection, "call", call)
    client.transact(*parts, timeout=1)
    assert seen == [is_repeated]
    client.close()
