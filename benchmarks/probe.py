"""A fresh process that looks at itself. Arguments: ``ours``, ``nixl`` or ``bare``, an etcd's URL, idle seconds."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Print what was seen as one JSON line."""
    subject, store, idle = sys.argv[1:]
    seen = bare(store) if subject == "bare" else agent(subject, store, float(idle))
    print(f"\n\n{json.dumps(seen)}", flush=True)
    os._exit(0)  # ends no agent in order: that is not measured, and takes time


def agent(subject: str, store: str, idle: float) -> dict[str, float]:
    """Import the library, make an agent with a store, let it idle."""
    began = time.perf_counter()
    if subject == "ours":
        import trunkline

        imported = time.perf_counter()
        kept: Any = trunkline.Agent("probe", store=store, takeover=True)
    else:
        os.environ["NIXL_ETCD_ENDPOINTS"] = store
        from nixl_cu12 import _api

        imported = time.perf_counter()
        kept = _api.nixl_agent("probe", _api.nixl_agent_config(backends=["UCX"]))
    created = time.perf_counter()
    busy = time.process_time()
    time.sleep(idle)
    busy = time.process_time() - busy
    assert kept is not None
    return {
        "import": (imported - began) * 1e3,
        "creation": (created - imported) * 1e3,
        "memory": resident(),
        "threads": len([*Path("/proc/self/task").iterdir()]),
        "idle": busy / idle * 100,
    }


def bare(store: str) -> dict[str, float]:
    """Load what any client of UCX and etcd in Python needs, and use it once."""
    import grpc
    import numpy as np

    from trunkline.backend.plugins.ucx.library import load_native

    load_native()
    from trunkline.backend.plugins.ucx._native import Worker

    worker = Worker("probe", {}, notification_count=1, notification_bytes=1)
    channel = grpc.insecure_channel(store.partition("://")[2])
    grpc.channel_ready_future(channel).result(timeout=30)
    assert worker.address()
    assert np.ones(1).all()
    return {"memory": resident()}


def resident() -> float:
    """Return the process's resident memory in MB (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
