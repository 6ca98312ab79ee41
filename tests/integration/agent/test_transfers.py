"""What an application does with two agents: views, groups, lists, notifications, waiting in every way."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

import trunkline
from trunkline import Agent, DescriptorList, MemoryKind, Operation, State, typed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tests.integration.agent.conftest import Pair

    from trunkline import TransferHandle


def blocks_of(count: int, *, seed: int, shape: tuple[int, ...] = (64, 256)) -> dict[str, NDArray[np.uint16]]:
    random = np.random.default_rng(seed)
    return {f"layer.{i}": random.integers(0, 2**16, shape, np.uint16) for i in range(count)}


def load(pair: Pair, theirs: Any, mine: Any) -> tuple[Any, Any]:
    """Register and publish at prefill, register and fetch at decode; return (remote, local) views."""
    pair.prefill.register(theirs, name="kv")
    pair.prefill.publish()
    local = pair.decode.register(mine, name="kv")
    return pair.decode.fetch("prefill-0")["kv"], local


def test_a_group_moves_the_same_rows_of_every_member_with_one_notification(pair: Pair) -> None:
    theirs, mine = blocks_of(4, seed=1), blocks_of(4, seed=2)
    before = {name: array.copy() for name, array in mine.items()}
    remote, local = load(pair, theirs, mine)
    ids, places = [9, 3, 60, 0], [1, 2, 63, 7]
    transfer = pair.decode.read(remote[ids], into=local[places], notify=b"req-7", tag=7)
    assert transfer.wait() is transfer
    assert transfer.state is State.DONE
    for name in theirs:
        before[name][places] = theirs[name][ids]
        np.testing.assert_array_equal(mine[name], before[name])
    note = pair.prefill.wait_notification()
    assert (note.sender, note.payload, note.ok) == ("decode-0", b"req-7", True)
    assert pair.prefill.take_notifications() == []
    assert [each.tag for each in pair.decode.take_finished()] == [7]
    assert pair.decode.take_finished() == []


def test_writing_mirrors_reading(pair: Pair) -> None:
    theirs, mine = blocks_of(2, seed=1), blocks_of(2, seed=2)
    remote, local = load(pair, theirs, mine)
    pair.decode.write(local[10:20], to=remote[30:40]).wait()
    for name in theirs:
        np.testing.assert_array_equal(theirs[name][30:40], mine[name][10:20])


def test_a_list_of_pairs_is_one_transfer(pair: Pair) -> None:
    theirs, mine = blocks_of(2, seed=1), blocks_of(2, seed=2)
    remote, local = load(pair, theirs, mine)
    pairs = [(remote["layer.0"][3], local["layer.1"][5]), (remote["layer.1"][[1, 2]], local["layer.0"][[8, 7]])]
    transfer = pair.decode.read(pairs, notify=b"once").wait()
    assert transfer.telemetry.blocks == 3
    np.testing.assert_array_equal(mine["layer.1"][5], theirs["layer.0"][3])
    np.testing.assert_array_equal(mine["layer.0"][[8, 7]], theirs["layer.1"][[1, 2]])
    pair.decode.write([(local["layer.0"][0], remote["layer.0"][0])]).wait()
    np.testing.assert_array_equal(theirs["layer.0"][0], mine["layer.0"][0])
    pair.prefill.wait_notification()
    assert pair.prefill.take_notifications() == []


def test_descriptor_lists_are_the_lower_level(pair: Pair) -> None:
    theirs, mine = np.arange(4096, dtype=np.uint8), np.zeros(4096, np.uint8)
    load(pair, theirs, mine)
    rows = np.array([[0, 16, 0], [100, 50, 0], [4000, 96, 0]], np.uint64)
    there, here = rows.copy(), rows.copy()
    there[:, 0] += np.uint64(theirs.ctypes.data)
    here[:, 0] += np.uint64(mine.ctypes.data)
    pair.decode.read(
        DescriptorList.of(MemoryKind.DRAM, there), into=DescriptorList.of(MemoryKind.DRAM, here), peer="prefill-0"
    ).wait()
    expected = np.zeros(4096, np.uint8)
    for start, length, _ in rows.tolist():
        expected[start : start + length] = theirs[start : start + length]
    np.testing.assert_array_equal(mine, expected)


def test_a_prepared_pair_posts_blocks_again_and_again(pair: Pair) -> None:
    theirs, mine = blocks_of(2, seed=1), blocks_of(2, seed=2)
    remote, local = load(pair, theirs, mine)
    prepared = pair.decode.prepare(local, remote)
    prepared.read([4, 2], [0, 1]).wait()
    prepared.read([5]).wait()
    prepared.write([0], [63]).wait()
    for name in theirs:
        np.testing.assert_array_equal(mine[name][[0, 1, 5]], theirs[name][[4, 2, 5]])
        np.testing.assert_array_equal(theirs[name][63], mine[name][0])


def test_a_handle_is_posted_again_when_done(pair: Pair) -> None:
    theirs, mine = np.zeros(8, np.uint8), np.zeros(8, np.uint8)
    remote, local = load(pair, theirs, mine)
    transfer = pair.decode.read(remote, into=local).wait()
    for value in range(5):
        theirs[:] = value
        transfer.post().wait()
        assert mine.tolist() == [value] * 8


def test_waiting_for_several(pair: Pair) -> None:
    theirs, mine = blocks_of(1, seed=1), blocks_of(1, seed=2)
    remote, local = load(pair, theirs, mine)
    transfers = [pair.decode.read(remote[i], into=local[i]) for i in range(8)]
    assert set(trunkline.as_completed(transfers[:4])) == set(transfers[:4])
    assert trunkline.wait(transfers) == transfers
    assert all(each.ok for each in transfers)


def test_done_callbacks_run_once_a_round_and_at_once_when_it_is_over(pair: Pair) -> None:
    remote, local = load(pair, blocks_of(1, seed=1), blocks_of(1, seed=2))
    seen: list[Any] = []
    transfer = pair.decode.read(remote, into=local)
    transfer.add_done_callback(seen.append)
    transfer.wait()
    transfer.add_done_callback(seen.append)
    transfer.post().wait()
    assert seen == [transfer, transfer]


async def test_awaiting_transfers_and_notifications(pair: Pair) -> None:
    theirs, mine = blocks_of(2, seed=1), blocks_of(2, seed=2)
    remote, local = load(pair, theirs, mine)
    first, second = await asyncio.gather(
        pair.decode.read(remote[:5], into=local[:5]), pair.decode.read(remote[5:9], into=local[5:9])
    )
    assert first.ok
    assert second.ok
    for name in theirs:
        np.testing.assert_array_equal(mine[name][:9], theirs[name][:9])


def test_many_threads_use_one_agent(pair: Pair) -> None:
    theirs, mine = blocks_of(1, seed=1), blocks_of(1, seed=2)
    remote, local = load(pair, theirs, mine)
    errors: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for row in range(start, 64, 8):
                pair.decode.read(remote[[row]], into=local[[row]], notify=str(row).encode()).wait()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    np.testing.assert_array_equal(mine["layer.0"], theirs["layer.0"])
    notes = [pair.prefill.wait_notification() for _ in range(64)]
    assert {note.payload for note in notes} == {str(row).encode() for row in range(64)}


def test_types_that_numpy_lacks(pair: Pair) -> None:
    theirs, mine = np.arange(64, dtype=np.uint16), np.zeros(64, np.uint16)
    remote, local = load(pair, typed(theirs, "BF16", (8, 8)), typed(mine, "BF16", (8, 8)))
    assert remote.dtype == "BF16"
    assert remote.shape == (8, 8)
    pair.decode.read(remote[[1]], into=local[[2]]).wait()
    assert mine.tolist() == [0] * 16 + list(range(8, 16)) + [0] * 40


def test_telemetry_counts_what_was_asked_and_what_was_posted(pair: Pair) -> None:
    remote, local = load(pair, blocks_of(1, seed=1), blocks_of(1, seed=2))
    pair.decode.peer("prefill-0").connect()
    transfer = pair.decode.read(remote[[1, 2, 3, 9]], into=local[[1, 2, 3, 9]]).wait()
    figures = transfer.telemetry
    assert (figures.bytes, figures.blocks, figures.descriptors) == (4 * 512, 4, 2)
    assert figures.backend == "CMA"
    assert figures.transports == ("process_vm",)
    assert set(figures.transports) <= set(pair.decode.peer("prefill-0").transports)
    assert figures.post_us > 0
    assert figures.total_us > 0
    assert figures.bandwidth_gbps > 0
    assert transfer.operation is Operation.READ
    assert "2,048 bytes in 4 blocks from 'prefill-0': DONE" in repr(transfer)


def test_messages_without_memory(pair: Pair) -> None:
    pair.prefill.publish()
    pair.decode.fetch("prefill-0")
    pair.decode.notify("prefill-0", b"")
    pair.decode.notify("prefill-0", bytes(range(256)) * 100)
    assert pair.prefill.wait_notification().payload == b""
    assert pair.prefill.wait_notification(matches=lambda note: len(note.payload) == 25_600).sender == "decode-0"


def test_the_side_channel_needs_no_store() -> None:
    theirs, mine = np.arange(64, dtype=np.int64), np.zeros(64, np.int64)
    with trunkline.Agent("a", devices="lo", attributes={"zone": "1"}) as a, trunkline.Agent("b", devices="lo") as b:
        a.register(theirs, name="weights")
        local = b.register(mine)
        peer = b.load_peer(a.card())
        assert peer.attributes == {"zone": "1"}
        b.read(peer["weights"], into=local).wait()
        np.testing.assert_array_equal(mine, theirs)
        mine[:] = 0
        b.unload_peer("a")
        raw = b.load_peer(a.local_metadata())
        assert raw.keys() == []
        segments = raw.segments(MemoryKind.DRAM)
        here = DescriptorList.of(MemoryKind.DRAM, [(mine.ctypes.data, mine.nbytes, 0)])
        b.read(segments, into=here, peer=raw).wait()
        np.testing.assert_array_equal(mine, theirs)


def test_connect_proves_the_path_before_the_first_request(pair: Pair) -> None:
    load(pair, blocks_of(1, seed=1), blocks_of(1, seed=2))
    peer = pair.decode.peer("prefill-0")
    assert "tcp/lo" not in peer.transports
    peer.connect(timeout=30)
    assert peer.transports


def test_a_done_callback_may_close_the_agent(store: str) -> None:
    theirs, mine = np.ones(64 << 20, np.uint8), np.zeros(64 << 20, np.uint8)
    with Agent("prefill-0", store=store, devices="lo") as prefill:
        prefill.register(theirs, name="kv")
        prefill.publish()
        others = set(threading.enumerate())
        decode = Agent("decode-0", store=store, devices="lo")
        local = decode.register(mine, name="kv")
        closed = threading.Event()

        def close(_: TransferHandle) -> None:
            decode.close()
            closed.set()

        transfer = decode.read(decode.fetch("prefill-0")["kv"], into=local)
        transfer.add_done_callback(close)
        assert closed.wait(60)
        for thread in set(threading.enumerate()) - others:
            thread.join(60)  # an exception in it would fail this test
            assert not thread.is_alive()
    assert transfer.ok
    assert mine.all()
