"""Two agents used by many threads that don't spare them: ``stress.py SEED SECONDS``. Exits with 0 if all rules held.

Posters read and write, cancel, post again and drop what they posted; their buffers come and go; the peer is unloaded,
loaded, closed and reopened under them. The rules: every transfer ends; a buffer whose transfers have ended does not
change; a read that is DONE brought the right bytes; nothing is raised but what the library documents.
"""

from __future__ import annotations

import contextlib
import faulthandler
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline import Agent, State
from trunkline.errors import MemoryInUseError, TransferError, TrunklineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trunkline import LocalTensor, TransferHandle

BLOCKS, SIZE = 64, 16 << 10
PATIENCE = 60.0
OFFERED, POISON = 7, 9


class Stress:
    """The agents, and what the threads know of each other."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.seed = seed
        self.end = time.monotonic() + seconds
        self.faults: list[str] = []
        self.done = 0
        # They outlive every agent: over TCP a late peer's access to unmapped memory would kill this process.
        self.offered = np.full((BLOCKS, SIZE), OFFERED, np.uint8)
        self.filled = np.zeros((BLOCKS, SIZE), np.uint8)
        self.decode = Agent("decode", devices="lo", grace=0.1)
        self.prefill = self.open_prefill()

    def open_prefill(self) -> Agent:
        prefill = Agent("prefill", devices="lo", grace=0.1)
        prefill.register(self.offered, name="offered")
        prefill.register(self.filled, name="filled")
        self.decode.load_peer(prefill.card())
        return prefill

    def post(self, choice: random.Random) -> None:
        """Register a buffer, move bytes through it in every way, take it back, see that it stays as it is."""
        memory = np.zeros((BLOCKS, SIZE), np.uint8)
        local = self.decode.register(memory)
        posted: list[TransferHandle] = []
        try:
            for _ in range(choice.randrange(1, 6)):
                with contextlib.suppress(TrunklineError):
                    posted.append(self.start(choice, memory, local))
        finally:
            for transfer in posted:
                if choice.random() < 0.2:
                    transfer.cancel()
            if choice.random() < 0.3:
                posted = []  # dropped: they run on
            for transfer in posted:
                self.see_end(choice, transfer)
            while True:
                with contextlib.suppress(MemoryInUseError):
                    self.decode.deregister(local, drain=0.0, timeout=PATIENCE)
                    break
        memory[:] = POISON
        for transfer in posted:
            with contextlib.suppress(TrunklineError):
                transfer.post()
                self.faults.append(f"{transfer!r} was posted with deregistered memory")
        time.sleep(choice.random() * 0.005)
        if not (memory == POISON).all():
            self.faults.append("memory changed after its transfers had ended")

    def start(self, choice: random.Random, memory: NDArray[np.uint8], local: LocalTensor) -> TransferHandle:
        peer = self.decode.peer("prefill")
        rows = choice.sample(range(BLOCKS), choice.choice([1, 2, BLOCKS // 2, BLOCKS]))
        options: dict[str, Any] = {
            "notify": choice.choice([None, b"note"]),
            "tag": choice.choice([None, 1]),
            "deadline": choice.choice([None, 0.001, PATIENCE]),
        }
        if choice.random() < 0.5:
            return self.decode.write(local[rows], to=peer["filled"][rows], **options)
        transfer = self.decode.read(peer["offered"][rows], into=local[rows], **options)

        def check(ended: TransferHandle) -> None:
            if ended.ok and not (memory[rows] == OFFERED).all():
                self.faults.append(f"{ended!r} brought other bytes")

        if choice.random() < 0.3:
            transfer.wait(PATIENCE)
            check(transfer)
        return transfer

    def see_end(self, choice: random.Random, transfer: TransferHandle) -> None:
        for round_left in reversed(range(choice.randrange(1, 4))):
            with contextlib.suppress(TransferError):
                transfer.wait(PATIENCE)
            self.done += transfer.state is State.DONE
            if not transfer.state.has_ended:
                self.faults.append(f"{transfer!r} has not ended")
            if round_left:
                try:
                    transfer.post()
                except TrunklineError:
                    return

    def look(self, choice: random.Random) -> None:
        """What an engine's step loop does, on both sides."""
        self.decode.take_finished()
        self.decode.take_notifications()
        with contextlib.suppress(TrunklineError):
            self.decode.notify("prefill", b"hello")
            self.prefill.take_notifications()
            repr(self.decode.peer("prefill").transports)
        time.sleep(choice.random() * 0.002)

    def change_peer(self, choice: random.Random) -> None:
        """Unload and load the peer, or let it die and come back."""
        time.sleep(choice.random() * 0.2)
        if choice.random() < 0.5:
            with contextlib.suppress(TrunklineError):
                self.decode.unload_peer("prefill")
            self.decode.load_peer(self.prefill.card())
        else:
            self.prefill.close()
            self.prefill = self.open_prefill()

    def repeat(self, action: Callable[[random.Random], None], number: int) -> None:
        choice = random.Random(f"{self.seed} {number}")
        try:
            while time.monotonic() < self.end and not self.faults:
                action(choice)
        except BaseException as error:
            self.faults.append(f"{action.__name__} raised {error!r}")
            raise

    def run(self) -> None:
        actions = [self.post, self.post, self.post, self.look, self.change_peer]
        threads = [
            threading.Thread(target=self.repeat, args=(action, number), name=f"{action.__name__}-{number}")
            for number, action in enumerate(actions)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.decode.close()
        self.prefill.close()


def main(seed: int, seconds: float) -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(seconds + 2 * PATIENCE, exit=True)
    stress = Stress(seed, seconds)
    stress.run()
    sys.stdout.write(f"{stress.done} rounds were done\n")
    if stress.faults or not stress.done:
        sys.exit("\n".join(stress.faults) or "nothing was done")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
