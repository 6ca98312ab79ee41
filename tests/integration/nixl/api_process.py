"""The same calls on NIXL's API and on ours; prints as JSON what each gave.

Arguments: the package (``nixl_cu12`` or ``trunkline.nixl``), and the kind of run: ``alone`` or ``store`` (an etcd is
named in the environment). Output: ``{scenario: {step: outcome}}``; an outcome is a value's text, or ``!`` and the name
of an exception.
"""

from __future__ import annotations

import json
import os
import sys

from tests.integration.nixl.api_scenarios import agents, bench, transfers, values

KINDS = {
    "alone": [
        values.enumerations,
        values.descriptor_lists,
        values.lists_from_all_sorts,
        agents.backends,
        agents.memory,
        agents.metadata,
        transfers.transfers,
        transfers.telemetry,
        transfers.prepared,
        transfers.notifications,
    ],
    "store": [agents.store],
}

if __name__ == "__main__":
    output = os.dup(1)
    os.dup2(2, 1)  # NIXL logs to standard output
    for scenario in KINDS[sys.argv[2]]:
        bench.said[scenario.__name__] = {}
        scenario()
    os.write(output, json.dumps(bench.said).encode())
    os.close(output)
    os._exit(0)  # NIXL's agents take their time to end, and nothing is left to be checked
