"""An S3 server for tests: moto's, a process of its own, which checks signatures."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

from trunkline.etcd.process import ServerProcess
from trunkline.etcd.server import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from trunkline.etcd.keeper import Keeper

REGION = "us-east-1"


class S3Server(ServerProcess):
    """moto's server on loopback with its own data, in memory. It accepts only the credentials that it made.

    Args:
        directory: Where its log (``s3.log``) goes; it is created.

    Attributes:
        access_key_id: The credentials, once it was started.
        secret_access_key: The credentials, once it was started.
    """

    name = "s3"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, free_port())
        self.access_key_id = ""
        self.secret_access_key = ""

    def command(self) -> list[str]:
        """Return moto's server with its arguments."""
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def environment(self) -> dict[str, str]:
        """Return ours; three calls make the user, and whatever follows has to be signed by him."""
        return {**super().environment(), "INITIAL_NO_AUTH_ACTION_COUNT": "3"}

    def start(self, timeout: float | None = 60.0, *, keeper: Keeper | None = None) -> Self:
        """Start it, wait until it takes connections, and make a user who may do everything.

        Raises:
            ConfigurationError: It can't be run, or the directory not be written.
            StoreUnavailableError: It ended, or takes none after ``timeout`` seconds; quotes its log.
        """
        super().start(timeout, keeper=keeper)
        try:
            self._make_user()
        except BaseException:
            self.close()
            raise
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

    def _make_user(self) -> None:
        iam = self.client("iam")
        iam.create_user(UserName="trunkline")
        key = iam.create_access_key(UserName="trunkline")["AccessKey"]
        everything = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="trunkline", PolicyName="everything", PolicyDocument=everything)
        self.access_key_id, self.secret_access_key = key["AccessKeyId"], key["SecretAccessKey"]
