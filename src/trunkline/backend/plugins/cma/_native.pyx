# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Python's side of cross-memory attach: objects and argument checks. `_native.pyi` documents it."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

import os

from trunkline.errors import BackendError, BackendUnavailableError, ClosedError, ForkedError, TransferStateError

include "../contract.pxi"
include "native/system.pxi"
include "native/state.pxi"
include "native/copying.pxi"
include "native/link.pxi"
include "native/driving.pxi"

watch_forks()

include "native/engine.pxi"
include "native/peer.pxi"
include "native/request.pxi"
