"""The low-level names that clients import from ``nixl._bindings``."""

from __future__ import annotations

from trunkline.nixl.agent_config import nixlAgentConfig as nixlAgentConfig
from trunkline.nixl.descriptor_list import nixlRegDList as nixlRegDList
from trunkline.nixl.descriptor_list import nixlRemoteDList as nixlRemoteDList
from trunkline.nixl.descriptor_list import nixlXferDList as nixlXferDList
from trunkline.nixl.enumeration import DEFAULT_COMM_PORT as DEFAULT_COMM_PORT
from trunkline.nixl.enumeration import NIXL_INIT_AGENT as NIXL_INIT_AGENT
from trunkline.nixl.enumeration import nixl_cost_t as nixl_cost_t
from trunkline.nixl.enumeration import nixl_mem_t as nixl_mem_t
from trunkline.nixl.enumeration import nixl_status_t as nixl_status_t
from trunkline.nixl.enumeration import nixl_thread_sync_t as nixl_thread_sync_t
from trunkline.nixl.enumeration import nixl_xfer_op_t as nixl_xfer_op_t
from trunkline.nixl.exception import nixlBackendError as nixlBackendError
from trunkline.nixl.exception import nixlCancelledError as nixlCancelledError
from trunkline.nixl.exception import nixlInvalidParamError as nixlInvalidParamError
from trunkline.nixl.exception import nixlMismatchError as nixlMismatchError
from trunkline.nixl.exception import nixlNotAllowedError as nixlNotAllowedError
from trunkline.nixl.exception import nixlNoTelemetryError as nixlNoTelemetryError
from trunkline.nixl.exception import nixlNotFoundError as nixlNotFoundError
from trunkline.nixl.exception import nixlNotPostedError as nixlNotPostedError
from trunkline.nixl.exception import nixlNotSupportedError as nixlNotSupportedError
from trunkline.nixl.exception import nixlRemoteDisconnectError as nixlRemoteDisconnectError
from trunkline.nixl.exception import nixlRepostActiveError as nixlRepostActiveError
from trunkline.nixl.exception import nixlUnknownError as nixlUnknownError
from trunkline.nixl.raw_agent import nixlAgent as nixlAgent
from trunkline.nixl.telemetry import nixlXferTelemetry as nixlXferTelemetry

HAVE_UCX_GPU_DEVICE_API = False
"""Whether memory views for transfers that a GPU starts can be prepared."""

DRAM_SEG = nixl_mem_t.DRAM_SEG
VRAM_SEG = nixl_mem_t.VRAM_SEG
BLK_SEG = nixl_mem_t.BLK_SEG
OBJ_SEG = nixl_mem_t.OBJ_SEG
FILE_SEG = nixl_mem_t.FILE_SEG

NIXL_READ = nixl_xfer_op_t.NIXL_READ
NIXL_WRITE = nixl_xfer_op_t.NIXL_WRITE

NIXL_IN_PROG = nixl_status_t.NIXL_IN_PROG
NIXL_SUCCESS = nixl_status_t.NIXL_SUCCESS
NIXL_ERR_NOT_POSTED = nixl_status_t.NIXL_ERR_NOT_POSTED
NIXL_ERR_INVALID_PARAM = nixl_status_t.NIXL_ERR_INVALID_PARAM
NIXL_ERR_BACKEND = nixl_status_t.NIXL_ERR_BACKEND
NIXL_ERR_NOT_FOUND = nixl_status_t.NIXL_ERR_NOT_FOUND
NIXL_ERR_MISMATCH = nixl_status_t.NIXL_ERR_MISMATCH
NIXL_ERR_NOT_ALLOWED = nixl_status_t.NIXL_ERR_NOT_ALLOWED
NIXL_ERR_REPOST_ACTIVE = nixl_status_t.NIXL_ERR_REPOST_ACTIVE
NIXL_ERR_UNKNOWN = nixl_status_t.NIXL_ERR_UNKNOWN
NIXL_ERR_NOT_SUPPORTED = nixl_status_t.NIXL_ERR_NOT_SUPPORTED

NIXL_THREAD_SYNC_NONE = nixl_thread_sync_t.NIXL_THREAD_SYNC_NONE
NIXL_THREAD_SYNC_STRICT = nixl_thread_sync_t.NIXL_THREAD_SYNC_STRICT
NIXL_THREAD_SYNC_RW = nixl_thread_sync_t.NIXL_THREAD_SYNC_RW
NIXL_THREAD_SYNC_DEFAULT = nixl_thread_sync_t.NIXL_THREAD_SYNC_DEFAULT

NIXL_COST_ANALYTICAL_BACKEND = nixl_cost_t.NIXL_COST_ANALYTICAL_BACKEND
