"""The benchmark's commands of the integration tests, to be broken."""

from __future__ import annotations

from tests.integration.bench.conftest import bench
from tests.integration.conftest import etcd_endpoint

__all__ = ["bench", "etcd_endpoint"]
