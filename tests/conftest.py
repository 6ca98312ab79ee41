from __future__ import annotations

import signal
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.testing.proxy import HttpProxy
    from trunkline.testing.s3 import S3Server

# How long an example takes says nothing on a busy machine.
settings.register_profile("trunkline", deadline=None)
settings.load_profile("trunkline")

# A shell that starts the tests in the background has them ignore SIGINT, and the commands they start would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    from trunkline.testing.s3 import S3Server

    with S3Server(tmp_path_factory.mktemp("s3")).start() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server) -> str:
    name = f"bucket-{uuid.uuid4().hex}"
    s3.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def s3_proxy(s3: S3Server) -> Iterator[HttpProxy]:
    from trunkline.testing.proxy import HttpProxy

    with HttpProxy(s3.port) as proxy:
        yield proxy
