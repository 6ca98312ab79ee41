# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Python's side of the UCX engine: objects and argument checks. `_native.pyi` documents it."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from trunkline.backend.plugins.ucx.ucp cimport *

import numpy as np

from trunkline.backend.plugins.ucx.address import worker_identity
from trunkline.errors import (
    BackendError, BackendUnavailableError, ClosedError, ForkedError, MemoryRegistrationError, NotRegisteredError,
    SegmentNotFoundError, TransferStateError,
)

include "../contract.pxi"
include "native/system.pxi"
include "native/severing.pxi"
include "native/sending.pxi"
include "native/state.pxi"
include "native/connection.pxi"
include "native/posting.pxi"
include "native/driving.pxi"

watch_forks()


cdef str explain(int status):
    return ucs_status_string(<ucs_status_t> status).decode()


def ucp_version() -> tuple[int, int, int]:
    cdef unsigned major, minor, release
    ucp_get_version(&major, &minor, &release)
    return major, minor, release


def first_bad_key(const uint8_t[::1] data, const int64_t[::1] offset, const int64_t[::1] size, int memory_type):
    cdef int64_t row, at, end, found = -1
    cdef uint64_t domains
    if offset.shape[0] != size.shape[0]:
        raise ValueError(f"{offset.shape[0]} key offsets but {size.shape[0]} key sizes")
    with nogil:
        for row in range(offset.shape[0]):
            at = offset[row]
            if at < 0 or size[row] < 9 or size[row] > KEY_LIMIT or at > data.shape[0] - size[row]:
                found = row
                break
            end = at + size[row]
            memcpy(&domains, &data[at], 8)
            if data[at + 8] != memory_type:
                found = row
                break
            at += 9
            while domains:
                if at >= end:
                    break
                domains &= domains - 1
                at += 1 + data[at]
            if domains or at > end or end - at > KEY_TRAILER:
                found = row
                break
    return None if found < 0 else found


include "native/worker.pxi"
include "native/endpoint.pxi"
include "native/request.pxi"
