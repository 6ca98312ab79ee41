"""The commands of the integration tests, to be broken."""

from __future__ import annotations

from tests.integration.cli.conftest import commands
from tests.integration.conftest import etcd_endpoint, namespace

__all__ = ["commands", "etcd_endpoint", "namespace"]
