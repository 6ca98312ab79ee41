"""A random sequence of faults, reproducible by its seed, against a model of who is alive."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, TypeAlias

from tests.fault.directory.fleet import TTL, Fleet, Member, wipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.testing.etcd import EtcdServer
    from trunkline.testing.proxy import TcpProxy

    Action: TypeAlias = Callable[[], str]

NAMES = ("a", "b", "c", "d")


class Sequence:
    """Runs faults one after the other; each only says what it did, the checks come at the end.

    Args:
        server: The etcd.
        seed: Decides everything but how long things take.
    """

    def __init__(self, server: EtcdServer, seed: int) -> None:
        self.log: list[str] = []
        self._server = server
        self._random = random.Random(seed)
        self._fleet = Fleet(server.endpoint)
        self._stopped: list[Member] = []
        self._losers: list[tuple[Member, str]] = []
        self._dead: list[str] = []  # names to start again
        self._proxied: Member | None = None
        self._proxy: TcpProxy | None = None
        self._is_cut = False
        self._outage = ""

    def run(self, steps: int) -> None:
        """Run this many faults, mend everything, and check that all is as the model says."""
        with self._fleet:
            try:
                self._start()
                for _ in range(steps):
                    action, *_ = self._random.choices(*zip(*self._choices(), strict=True))
                    self.log.append(action())
                self._heal()
                self._fleet.check_seen()
                for member, name in self._losers:
                    refused = member.try_to("publish", value="late", names=[name])
                    assert refused.get("error") == "SupersededError", f"{name}: {refused}"
                self._fleet.check()
            except BaseException as error:
                error.add_note(f"the faults were: {', '.join(self.log)}")
                raise

    def _start(self) -> None:
        self._proxied, self._proxy = self._fleet.launch_proxied(self._server.port)
        self._proxied.answer()
        self._fleet.open(self._proxied, NAMES[-1])
        self._fleet.start(*((name,) for name in NAMES[:-1]))

    def _choices(self) -> list[tuple[Action, float]]:
        """Return what can be done now, each with its weight."""
        choices: list[tuple[Action, float]] = [(self._pause_for_breath, 2)]
        running = [member for member in self._fleet.members if member not in self._stopped]
        holders = [member for member in running if self._held_by(member)]
        if holders:
            choices.append((lambda: self._publish(self._random.choice(holders)), 4))
            choices.append((lambda: self._hold_interpreter(self._random.choice(holders)), 0.5))
            choices.append((lambda: self._stop(self._random.choice(holders)), 1.5))
        if self._stopped:
            choices.append((lambda: self._resume(self._random.choice(self._stopped)), 2))
        mortal = [member for member in holders if member is not self._proxied]
        if len(mortal) > 1:
            choices.append((lambda: self._kill(self._random.choice(mortal)), 1.5))
        choices.append((self._mend, 2) if self._is_cut else (self._cut, 1))
        if self._outage:
            choices.append((self._end_outage, 3))
            return choices
        choices.extend([(self._kill_store, 1), (self._pause_store, 1), (self._wipe, 0.7), (self._compact, 1)])
        names = list(self._fleet.model.holders)
        choices.append((lambda: self._meddle("revoke", self._random.choice(names)), 0.7))
        choices.append((lambda: self._meddle("delete_presence", self._random.choice(names)), 0.7))
        choices.append((lambda: self._meddle("delete_marker", self._random.choice(names)), 0.7))
        if self._dead:
            choices.append((self._start_again, 3))
        replaceable = [member for member in mortal if len(self._fleet.members) < 7]
        if replaceable:
            choices.append((lambda: self._take_over(self._random.choice(replaceable)), 1))
        return choices

    def _held_by(self, member: Member) -> list[str]:
        return [name for name in member.names if (member, name) not in self._losers]

    # -- what members do and what happens to them --------------------------------------------------------------

    def _pause_for_breath(self) -> str:
        seconds = self._random.uniform(0, TTL / 2)
        time.sleep(seconds)  # faults that come at once and apart by parts of a TTL differ
        return f"wait {seconds:.1f} s"

    def _publish(self, member: Member) -> str:
        names = self._held_by(member)
        found = self._fleet.publish(member, *names, timeout=0.3 if self._outage or self._is_cut else 30.0)
        error = found.get("error")
        assert error in (None, "StoreUnavailableError", "DeadlineError"), f"publish {names}: {found}"
        return f"publish {names} {error or ''}"

    def _hold_interpreter(self, member: Member) -> str:
        member.ask("hold_interpreter", seconds=1.2 * TTL)
        return f"hold {member.names}"

    def _stop(self, member: Member) -> str:
        member.stop()
        self._stopped.append(member)
        return f"stop {member.names}"

    def _resume(self, member: Member) -> str:
        member.resume()
        self._stopped.remove(member)
        return f"resume {member.names}"

    def _kill(self, member: Member) -> str:
        names = self._held_by(member)
        member.kill()
        self._fleet.forget(member)
        self._losers = [loser for loser in self._losers if loser[0] is not member]
        for name in names:
            self._fleet.model.ended(name)
        self._dead.extend(names)
        return f"kill {names}"

    def _start_again(self) -> str:
        names, self._dead = tuple(self._dead), []
        self._fleet.start(names)
        return f"start {names}"

    def _take_over(self, member: Member) -> str:
        names = self._held_by(member)
        winner = self._fleet.launch()
        winner.answer()
        self._fleet.open(winner, *names, takeover=True)
        for name in names:
            # It has to notice now: once the winner is dead, too, the name would be the loser's again.
            assert member.ask("expect_event", kind="lost", name=name), f"{name} was not told of its loss"
            self._losers.append((member, name))
        return f"take over {names}"

    # -- what happens to the store -----------------------------------------------------------------------------

    def _kill_store(self) -> str:
        self._server.kill()
        self._outage = "killed"
        return "kill etcd"

    def _pause_store(self) -> str:
        self._server.pause()
        self._outage = "paused"
        return "pause etcd"

    def _end_outage(self) -> str:
        if self._outage == "killed":
            self._server.start()
        else:
            self._server.resume()
        self._outage = ""
        return "etcd is back"

    def _wipe(self) -> str:
        wipe(self._server)
        return "wipe etcd"

    def _compact(self) -> str:
        self._fleet.compact()
        return "compact"

    def _cut(self) -> str:
        assert self._proxy is not None
        self._proxy.cut()
        self._is_cut = True
        return "cut off"

    def _mend(self) -> str:
        assert self._proxy is not None
        self._proxy.mend()
        self._is_cut = False
        return "mend"

    def _meddle(self, what: str, name: str) -> str:
        getattr(self._fleet, what)(name)
        return f"{what} {name}"

    def _heal(self) -> None:
        """End everything that still lasts."""
        if self._outage:
            self.log.append(self._end_outage())
        self._mend()
        for member in list(self._stopped):
            self._resume(member)
        if self._dead:
            self._start_again()
