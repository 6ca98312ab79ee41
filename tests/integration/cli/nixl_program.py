"""A program for NVIDIA's nixl that knows nothing of Trunkline."""

import numpy as np
from nixl import nixl_agent, nixl_agent_config
from nixl._bindings import nixlNotFoundError

a, b = (nixl_agent(name, nixl_agent_config(backends=["UCX"])) for name in ("initiator", "target"))
mine, theirs = np.zeros(1024, np.uint8), np.ones(1024, np.uint8)
for agent, memory in ((a, mine), (b, theirs)):
    agent.register_memory([(memory.ctypes.data, memory.nbytes, 0, "")], "DRAM")
try:
    a.make_connection("target")
except nixlNotFoundError:
    name = a.add_remote_agent(b.get_agent_metadata()).decode()
local, remote = (a.get_xfer_descs([(memory.ctypes.data, 1024, 0)], "DRAM") for memory in (mine, theirs))
handle = a.initialize_xfer("READ", local, remote, name, b"read")
state = a.transfer(handle)
while state == "PROC":
    state = a.check_xfer_state(handle)
while not b.check_remote_xfer_done("initiator", b"read"):
    pass
assert (mine == 1).all()
a.release_xfer_handle(handle)
print(state)
