"""The compiled half of cross-memory attach: one engine, its links to other processes, posted requests. No policy.

Every method may be called from any thread. One lock per engine guards the bookkeeping; it is held during no copy, and
never while the GIL is asked for. Whatever may take long runs without the GIL. A method called in a forked child raises
ForkedError; after `Engine.close`, ClosedError.
"""

from typing import Any

from trunkline.backend import contract
from trunkline.backend.contract import Posting

class Engine:
    """The requests of one agent, what it says to those who connect, and the connections they keep.

    Args:
        name: The agent's name, for messages.
        connections: How many connections are kept; others are hung up on.

    Raises:
        BackendUnavailableError: The kernel lacks or refuses what is needed.
    """

    name: str

    def __init__(self, name: str, *, connections: int = 1024) -> None: ...
    @property
    def nonce_address(self) -> int: ...
    @property
    def nonce(self) -> bytes:
        """16 random bytes at `nonce_address`. A forked child has zeros there."""

    def listen(self, name: bytes, hello: bytes) -> None:
        """Make the abstract socket of that name; `hello` is sent to those of our user who connect. Called once."""

    @property
    def connections(self) -> int: ...
    @property
    def is_closed(self) -> bool: ...
    def check(self) -> None:
        """Raise ForkedError or ClosedError if it can't be used."""

    def progress(self) -> bool: ...
    def run(self, until: float) -> None:
        """Drive until there is news, `wake` was called, or `time.monotonic()` reaches `until`.

        An end is no news while somebody waits for it or polled within the last 50 µs.
        """

    def wake(self) -> None: ...
    def take_finished(self) -> list[Request]: ...
    def take_failed(self) -> list[Any]:
        """Return the owners of the links that broke since the last call."""

    def close(self) -> None: ...

class Link:
    """A connection to another process, proved or not.

    Args:
        engine: Our engine.
        owner: Its `obstacle` is asked by a `post` while the link is not proved, and it is what `take_failed` returns.
    """

    engine: Engine
    owner: Any

    def __init__(self, engine: Engine, owner: Any) -> None: ...
    def connect(self, name: bytes) -> int:
        """Connect to an abstract socket, without waiting; return 0 or the error's number."""

    def process(self) -> tuple[int, int]:
        """Return the pid (0: not in our namespace) and uid of who made the socket."""

    def receive(self) -> bytes | None:
        """Return what was sent to us; None if nothing yet, empty if it has hung up."""

    def prove(self, pid: int, address: int, nonce: bytes) -> int:
        """Read the nonce in that process; return 0 (from now on it is ready), the error's number, or -1: it differs."""

    def wait(self, seconds: float) -> None:
        """Wait until there is something to receive, at most 50 ms."""

    def hang_up(self) -> None:
        """Close the connection of a link that is not proved."""

    @property
    def is_ready(self) -> bool:
        """Whether it is proved and has not hung up, as seen now."""

    @property
    def is_broken(self) -> bool:
        """Whether it was proved and has hung up."""

    @property
    def reason(self) -> str:
        """Why it is broken, or can't be used any more; else empty."""

    def prepare(self, posting: Posting) -> Request: ...
    def abort(self, reason: str) -> None:
        """Fail what is posted and wait until it is quiet."""

    def close(self) -> None: ...

class Request(contract.Request):  # type: ignore[misc]  # its members are the protocol's
    """A posting bound to a link.

    Its rows are cut into chunks of at most 1 MiB and 1,024 rows, large rows too. `post` copies some itself; the thread
    in `Engine.run`, and those that call `poll` or `wait`, copy the rest side by side.
    """
