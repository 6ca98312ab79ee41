"""Where a group's run lies in a store.

    /trunkline/groups/<name>/run                                the run: its token, its size, who is in it
    /trunkline/groups/<name>/run/<token>/seat/<rank>            a worker
    /trunkline/groups/<name>/run/<token>/failed/<rank>          that a worker gave up, and why
    /trunkline/groups/<name>/run/<token>/release/<mask>         how the latest collective of a set of workers ended
    /trunkline/groups/<name>/inbox/<token>/<rank>/arrival/<mask>/<from>
                                                                that a worker has come to the latest collective
    /trunkline/groups/<name>/inbox/<token>/<rank>/message/<from>/<number>
    /trunkline/groups/<name>/inbox/<token>/<rank>/receipt/<from>
                                                                the number of the latest message that was received
    /trunkline/groups/<name>/chunks/<token>/<from>/set-<mask>/<number>/<part>
                                                                parts of what a worker brings to a collective, or of how
                                                                that ended, where it is too large for one key
    /trunkline/groups/<name>/chunks/<token>/<from>/to-<rank>/<number>/<part>
                                                                parts of a message

Everybody watches what begins with ``…/run``, and an inbox of their own. A mask names a set of workers: bit N stands for
rank N, in hexadecimal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline.errors import ConfigurationError
from trunkline.metadata.key import is_agent_name

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = "/trunkline/groups"
"""Of all groups; no agent's namespace."""

MAX_WORKERS = 1024
"""Of one group."""

MAX_NUMBER = 2**53
"""Of messages between two workers, and of collectives of one set of workers."""

_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,15})\Z", re.ASCII)
_MASK = re.compile(r"[1-9a-f][0-9a-f]{0,255}\Z", re.ASCII)


def mask_of(ranks: Iterable[int]) -> int:
    """Return the set of these workers as a number."""
    mask = 0
    for rank in ranks:
        mask |= 1 << rank
    return mask


def parse_number(text: str) -> int | None:
    """Return a rank or number as it stands in a key; None if it is none."""
    return int(text) if _NUMBER.match(text) else None


def parse_mask(text: str) -> int | None:
    """Return a mask as it stands in a key; None if it is none."""
    return int(text, 16) if _MASK.match(text) else None


@dataclass(frozen=True, slots=True)
class GroupKey:
    """The keys of a group that do not depend on its run.

    Attributes:
        name: The group's: the same rules as for agents.

    Raises:
        ConfigurationError: The name breaks its rules.
    """

    name: str

    def __post_init__(self) -> None:
        if not is_agent_name(self.name):
            raise ConfigurationError(
                f"group name {self.name[:80]!r} can't be used: it must not be empty, start with a dot, hold a slash or "
                "a control character, or be longer than 255 bytes",
                group=self.name,
            )

    @property
    def run(self) -> str:
        """The key of the run, and what the keys begin with that every worker watches."""
        return f"{ROOT}/{self.name}/run"

    def of_run(self, token: str) -> RunKey:
        """Return the keys of one run."""
        return RunKey(self, token)


@dataclass(frozen=True, slots=True)
class RunKey:
    """The keys of one run of a group.

    Attributes:
        group: Whose.
        token: Tells this run from all others.
    """

    group: GroupKey
    token: str

    @property
    def prefix(self) -> str:
        """What the keys begin with that every worker watches, but for the run's own."""
        return f"{self.group.run}/{self.token}/"

    @property
    def seats(self) -> str:
        """What the keys of all workers begin with."""
        return f"{self.prefix}seat/"

    def seat(self, rank: int) -> str:
        return f"{self.seats}{rank}"

    def failed(self, rank: int) -> str:
        return f"{self.prefix}failed/{rank}"

    def release(self, mask: int) -> str:
        return f"{self.prefix}release/{mask:x}"

    def inbox(self, rank: int) -> str:
        """What all keys begin with that are for one worker alone."""
        return f"{ROOT}/{self.group.name}/inbox/{self.token}/{rank}/"

    def arrival(self, to: int, mask: int, sender: int) -> str:
        return f"{self.inbox(to)}arrival/{mask:x}/{sender}"

    def message(self, to: int, sender: int, number: int) -> str:
        return f"{self.inbox(to)}message/{sender}/{number}"

    def receipt(self, to: int, sender: int) -> str:
        return f"{self.inbox(to)}receipt/{sender}"

    def collective_chunks(self, sender: int, mask: int) -> str:
        """What all keys begin with of the chunks that a worker writes for a set of workers."""
        return f"{ROOT}/{self.group.name}/chunks/{self.token}/{sender}/set-{mask:x}/"

    def message_chunks(self, sender: int, to: int) -> str:
        """What all keys begin with of the chunks of a worker's messages to another."""
        return f"{ROOT}/{self.group.name}/chunks/{self.token}/{sender}/to-{to}/"
