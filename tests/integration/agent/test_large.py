"""Agents with more memory than one transaction of etcd describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, MemoryKind, PeerUpdated
from trunkline.errors import SegmentGoneError
from trunkline.testing.etcd import EtcdServer, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trunkline.directory.watch import DirectoryWatch

SIZE = 64
"""Bytes of each region."""


@pytest.fixture(scope="module", params=etcd_binaries(), ids=lambda path: path.parent.name)
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary: Path = request.param
    with EtcdServer(tmp_path_factory.mktemp("etcd"), binary=binary).start() as server:
        yield server.endpoint


def wait_updated(watch: DirectoryWatch) -> None:
    while not isinstance(event := watch.next(60), PeerUpdated):
        assert event is not None, "nothing was told in a minute"


@pytest.mark.parametrize(
    ("tensors", "regions"), [(8_000, 30_000), pytest.param(50_000, 100_000, marks=pytest.mark.soak)]
)
def test_much_memory_with_many_names_is_published_fetched_and_updated(
    endpoint: str, namespace: str, monkeypatch: pytest.MonkeyPatch, tensors: int, regions: int
) -> None:
    memory = np.arange(regions * SIZE // 4, dtype=np.uint32).view(np.uint8)
    named = {f"layers.{number // 100}.{number % 100}.weight": (number * SIZE, SIZE) for number in range(tensors)}
    with (
        Agent("offers", store=endpoint, namespace=namespace, devices="lo", timeout=60) as offers,
        Agent("takes", store=endpoint, namespace=namespace, devices="lo", timeout=60) as takes,
        takes.watch("offers") as watch,
    ):
        kv = offers.register({name: memory[start : start + size] for name, (start, size) in named.items()}, name="kv")
        rows = np.zeros((regions - tensors, 3), np.uint64)
        rows[:, 0] = memory.ctypes.data + SIZE * np.arange(tensors, regions, dtype=np.uint64)
        rows[:, 1] = SIZE
        raw = offers.register(DescriptorList.of(MemoryKind.DRAM, rows))
        offers.publish()
        peer = takes.fetch("offers")
        assert len(peer["kv"]) == tensors
        local = takes.register(np.zeros(SIZE, np.uint8))
        mine = DescriptorList.of(MemoryKind.DRAM, [(local.address, SIZE, 0)])
        target = DescriptorList.of(MemoryKind.DRAM, rows[-1:])
        takes.read(target, into=mine, peer=peer).wait()

        loaded: list[int] = []
        link = peer.target.links["UCX"]
        load_segments = link.load_segments

        def load_and_count(kind: MemoryKind, segments: np.ndarray, keys: object) -> object:
            loaded.append(len(segments))
            return load_segments(kind, segments, keys)  # type: ignore[arg-type]

        monkeypatch.setattr(link, "load_segments", load_and_count)
        one = offers.register(memory[:SIZE].copy(), name="one")
        offers.publish()
        wait_updated(watch)
        assert loaded == [1]
        takes.read(peer["one"], into=local).wait()
        offers.deregister(raw)
        wait_updated(watch)
        assert loaded == [1]
        with pytest.raises(SegmentGoneError):
            takes.read(target, into=mine, peer=peer)
        offers.deregister(kv)
        wait_updated(watch)
        assert peer.keys() == ["one"]
        assert one.nbytes == SIZE
