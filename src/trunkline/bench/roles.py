"""Who moves blocks to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from trunkline.bench.options import Options


class Pair(NamedTuple):
    """Two workers, by rank.

    Attributes:
        initiator: Who posts.
        target: Whose memory is used; the initiator itself where that is a file.
    """

    initiator: int
    target: int


class Roles(NamedTuple):
    """The pairs of a run.

    Attributes:
        pairs: Who moves blocks to whom; with several teams each one's, in the order of the teams.
        teams: The engines, each with its workers' ranks: they are measured in turn.
        parts: Into how many parts a block is cut, one for each pair (tensor-parallel).
    """

    pairs: tuple[Pair, ...]
    teams: tuple[tuple[str, tuple[int, ...]], ...]
    parts: int

    @property
    def most_peers(self) -> int:
        """The most pairs that one worker has on one side."""
        initiators = [pair.initiator for pair in self.pairs]
        targets = [pair.target for pair in self.pairs]
        return max(max(ranks.count(rank) for rank in ranks) for ranks in (initiators, targets))

    def targets_of(self, rank: int) -> list[int]:
        """Return the ranks that a worker moves blocks to (or from), in order; none if it is no initiator."""
        return [pair.target for pair in self.pairs if pair.initiator == rank]

    def initiators_of(self, rank: int) -> list[int]:
        """Return the ranks that use a worker's memory, in order; none if it is no target."""
        return [pair.initiator for pair in self.pairs if pair.target == rank]

    def team_of(self, rank: int) -> tuple[str, tuple[int, ...]]:
        """Return the engine of a worker, and the ranks that share it."""
        return next(team for team in self.teams if rank in team[1])


def assign_roles(options: Options) -> Roles:
    """Return who does what.

    Raises:
        ConfigurationError: So many workers can't be shared out like this.
    """
    if options.is_storage:
        return Roles((Pair(0, 0),), ((options.engine, (0,)),), 1)
    names = ("trunkline", "nixl") if options.engine == "both" else (options.engine,)
    size, left_over = divmod(options.size, len(names))
    if left_over:
        raise ConfigurationError(f"--engine both needs as many workers for each engine, not {options.size} in all")
    pairs: list[Pair] = []
    teams = []
    initiators, targets = _sides(options, size)
    for number, name in enumerate(names):
        first = number * size
        teams.append((name, tuple(range(first, first + size))))
        its = _pair_up(options.scheme, initiators, targets)
        pairs += [Pair(first + each.initiator, first + initiators + each.target) for each in its]
    if options.bidirectional:
        pairs += [Pair(each.target, each.initiator) for each in pairs]
    parts = max(initiators, targets) // min(initiators, targets) if options.scheme == "tp" else 1
    if parts > 1 and options.start_block_size % parts:
        raise ConfigurationError(
            f"--scheme tp cuts blocks into {parts} parts here: --start-block-size {options.start_block_size} is no "
            "multiple of that"
        )
    return Roles(tuple(pairs), tuple(teams), parts)


def _sides(options: Options, size: int) -> tuple[int, int]:
    """Return how many of a team's workers are initiators and how many targets: the initiators come first."""
    scheme, what = options.scheme, f"--scheme {options.scheme} with {size} workers"
    if size < 2:
        raise ConfigurationError(f"{what}: there must be 2 at least, an initiator and a target")
    if options.mode == "MG":
        if size != 2:
            raise ConfigurationError(f"{what}: in --mode MG there are 2, one on each side")
        return 1, 1
    if scheme == "manytoone":
        return size - 1, 1
    if scheme == "onetomany":
        return 1, size - 1
    if scheme == "tp":
        initiators, targets = options.num_initiator_dev, options.num_target_dev
        if initiators + targets != size:
            raise ConfigurationError(
                f"{what}: --num-initiator-dev {initiators} and --num-target-dev {targets} don't add up to that"
            )
        if max(initiators, targets) % min(initiators, targets):
            raise ConfigurationError(
                f"{what}: the number of one side ({initiators} and {targets}) must be a multiple of the other's"
            )
        return initiators, targets
    if size % 2:
        raise ConfigurationError(f"{what}: pairs need an even number")
    return size // 2, size // 2


def _pair_up(scheme: str, initiators: int, targets: int) -> list[Pair]:
    if scheme == "pairwise":
        return [Pair(number, number) for number in range(initiators)]
    if scheme == "tp":
        larger = max(initiators, targets)
        return [Pair(number * initiators // larger, number * targets // larger) for number in range(larger)]
    return [Pair(initiator, target) for initiator in range(initiators) for target in range(targets)]
