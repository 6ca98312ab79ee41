"""An S3 server for tests (moto's, a process of its own), which checks signatures; a proxy that breaks connections."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from trunkline.errors import StoreUnavailableError
from trunkline.etcd.server import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

REGION = "us-east-1"


class S3Server:
    """moto's server on loopback with its own data, in memory. It accepts only the credentials that it made.

    Args:
        directory: Where its log (``s3.log``) goes; it is created.

    Attributes:
        port: Its TCP port.
        access_key_id: The credentials, once it was started.
        secret_access_key: The credentials, once it was started.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.access_key_id = ""
        self.secret_access_key = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The URL for clients."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, timeout: float = 60.0) -> Self:
        """Start it, wait until it takes connections, and make a user who may do everything.

        Raises:
            StoreUnavailableError: It ended, or takes none after ``timeout`` seconds; quotes its log.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        log_path = self.directory / "s3.log"
        # Three calls make the user; whatever follows has to be signed by him.
        environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "3"}
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        began = time.monotonic()
        while not self._accepts():
            elapsed = time.monotonic() - began
            if self._process.poll() is not None or elapsed > timeout:
                self.close()
                raise StoreUnavailableError(
                    f"moto's server at {self.endpoint} does not serve after {elapsed:.1f} s; "
                    f"its log ends: {log_path.read_text('utf-8', 'replace')[-500:]}",
                    url=self.endpoint,
                    elapsed=elapsed,
                )
            time.sleep(0.02)
        self._make_user()
        return self

    def client(self, service: str = "s3") -> Any:
        """Return boto3's client, another way to what the server holds."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key_id or "nobody",
            aws_secret_access_key=self.secret_access_key or "nothing",
        )

    def options(self, **changed: Any) -> dict[str, Any]:
        """Return the object backend's options for it."""
        return {
            "endpoint": self.endpoint,
            "region": REGION,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            **changed,
        }

    def close(self) -> None:
        """End it, by force after 10 s. Idempotent."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make_user(self) -> None:
        iam = self.client("iam")
        iam.create_user(UserName="trunkline")
        key = iam.create_access_key(UserName="trunkline")["AccessKey"]
        everything = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="trunkline", PolicyName="everything", PolicyDocument=everything)
        self.access_key_id, self.secret_access_key = key["AccessKeyId"], key["SecretAccessKey"]

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


class Proxy:
    """A TCP proxy on loopback whose behaviour can be changed while it runs.

    Args:
        port: The port behind it.

    Attributes:
        port: Its own port.
        answer: Called with each chunk that clients send. What it returns is sent back instead of the chunk being passed
            on, and the connection closed; None passes it on.
        cut_after: How many bytes of an answer are passed on before the connection is cut; None for all.
        is_stalled: Whether answers are held back.
        connections: How many were made.
    """

    def __init__(self, port: int) -> None:
        self.answer: Callable[[bytes], bytes | None] = lambda _: None
        self.cut_after: int | None = None
        self.is_stalled = False
        self.connections = 0
        self._behind = port
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    @property
    def endpoint(self) -> str:
        """The URL for clients."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Cut everything."""
        self._closed.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(client,), name="proxy", daemon=True))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._behind)) as server, contextlib.suppress(OSError):
            client.settimeout(0.1)
            server.settimeout(0.1)
            back = threading.Thread(target=self._pass_back, args=(server, client), name="proxy", daemon=True)
            back.start()
            while not self._closed.is_set() and back.is_alive():
                try:
                    data = client.recv(1 << 16)
                except TimeoutError:
                    continue
                if not data:
                    break
                answer = self.answer(data)
                if answer is not None:
                    client.sendall(answer)
                    break
                server.sendall(data)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            back.join()

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while not self._closed.is_set():
                try:
                    data = server.recv(1 << 16)
                except TimeoutError:
                    continue
                if not data:
                    break
                while self.is_stalled and not self._closed.wait(0.02):
                    pass
                if self.cut_after is not None and passed + len(data) > self.cut_after:
                    client.sendall(data[: self.cut_after - passed])
                    break
                client.sendall(data)
                passed += len(data)
            client.shutdown(socket.SHUT_RDWR)
