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

from trunkline.backend.contract import Status
from trunkline.errors import (
    BackendError, BackendUnavailableError, ClosedError, ForkedError, MemoryRegistrationError, NotRegisteredError,
    SegmentNotFoundError, TransferStateError,
)

include "engine.pxi"

watch_forks()

cdef tuple _STATUSES = tuple(Status(value) for value in range(-2, 3))
cdef int64_t _NEVER = 1 << 62


cdef inline object status_object(int status):
    return _STATUSES[status + 2]


cdef inline int64_t nanoseconds(double seconds) noexcept:
    return _NEVER if seconds > 4e9 else <int64_t> (seconds * 1e9)


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


cdef class Worker:
    cdef worker_t c
    cdef unsigned forks
    cdef readonly str name
    cdef readonly uint64_t memory_types

    def __cinit__(self):
        self.c.memory.free = -1
        self.c.event_fd = self.c.wake_fd = -1
        self.c.is_closed = True

    def __init__(self, str name, dict config, *, size_t notification_count, size_t notification_bytes):
        cdef ucp_config_t *settings
        cdef ucp_params_t params
        cdef ucp_worker_params_t worker_params
        cdef ucp_context_attr_t attributes
        cdef ucs_status_t status
        cdef bytes encoded = name.encode()
        if not self.c.is_closed:
            raise BackendError(f"UCX worker {name!r} is already open")
        self.name = name
        self.forks = fork_count
        self.c.inbox_count_limit = notification_count
        self.c.inbox_bytes_limit = notification_bytes
        status = ucp_config_read(NULL, NULL, &settings)
        self._demand(status, "read UCX's configuration (UCX_* environment variables)")
        try:
            for key, value in config.items():
                self._demand(ucp_config_modify(settings, key.encode(), value.encode()), f"set UCX_{key}={value}")
            params.field_mask = (
                UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED | UCP_PARAM_FIELD_NAME)
            params.features = (
                UCP_FEATURE_RMA | UCP_FEATURE_AMO32 | UCP_FEATURE_AMO64 | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP)
            params.mt_workers_shared = 1  # memory is registered without the gate
            params.name = PyBytes_AS_STRING(encoded)
            with nogil:
                status = ucp_init(&params, settings, &self.c.context)
            self._demand(status, "make a UCX context")
        finally:
            ucp_config_release(settings)
        try:
            worker_params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE
            worker_params.thread_mode = UCS_THREAD_MODE_SERIALIZED
            with nogil:
                status = ucp_worker_create(self.c.context, &worker_params, &self.c.ucp)
            self._demand(status, "make a UCX worker; does a network device of that name exist (devices=, UCX_NET_DEVICES)?")
        except BaseException:
            ucp_cleanup(self.c.context)
            raise
        attributes.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES
        ucp_context_query(self.c.context, &attributes)
        self.memory_types = attributes.memory_types
        bell_open(&self.c.changed)
        bell_open(&self.c.resume)
        self.c.is_closed = False
        try:
            self._listen(0, notification_arrived)
            self._listen(1, failure_arrived)
            self._demand(ucp_worker_get_efd(self.c.ucp, &self.c.event_fd), "get the UCX worker's event descriptor")
            close_on_exec(self.c.event_fd)
            self.c.wake_fd = wake_open()
            if self.c.wake_fd < 0:
                raise BackendUnavailableError("eventfd failed: too many open files?", agent=name)
        except BaseException:
            self.close()
            raise

    cdef _demand(self, ucs_status_t status, str what):
        if status != UCS_OK:
            raise BackendUnavailableError(
                f"UCX can't be used by agent {self.name!r}: could not {what} ({explain(status)})",
                agent=self.name, status=explain(status))

    cdef _listen(self, unsigned id, ucp_am_recv_callback_t callback):
        cdef ucp_am_handler_param_t param
        param.field_mask = (UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS
                            | UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG)
        param.id = id
        param.flags = UCP_AM_FLAG_WHOLE_MSG
        param.cb = callback
        param.arg = &self.c
        self._demand(ucp_worker_set_am_recv_handler(self.c.ucp, &param), "listen for notifications")

    cdef inline int check(self) except -1:
        if self.forks != fork_count:
            raise ForkedError(
                f"the UCX backend of agent {self.name!r} was made before this process was forked; "
                "make a new agent in the child", agent=self.name)
        if self.c.is_closed:
            raise ClosedError(f"the UCX backend of agent {self.name!r} is closed", agent=self.name)
        return 0

    @property
    def is_closed(self) -> bool:
        return self.c.is_closed

    def address(self) -> bytes:
        cdef ucp_worker_attr_t attributes
        cdef ucs_status_t status
        self.check()
        attributes.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS
        with nogil:
            gate_enter(&self.c.gate)
            status = ucp_worker_query(self.c.ucp, &attributes)
            gate_leave(&self.c.gate)
        self._demand(status, "get the UCX worker's address")
        try:
            return PyBytes_FromStringAndSize(<char *> attributes.address, attributes.address_length)
        finally:
            ucp_worker_release_address(self.c.ucp, attributes.address)

    def register(self, const uint64_t[:, ::1] segments, int memory_type):
        cdef ucp_mem_map_params_t params
        cdef ucs_status_t status = UCS_OK
        cdef int64_t row, mapped = 0, count = segments.shape[0]
        cdef ucp_mem_h handle
        slots = np.full(count, -1, dtype=np.int32)
        cdef int32_t[::1] slot = slots
        self.check()
        params.field_mask = (
            UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE)
        params.memory_type = <ucs_memory_type_t> memory_type
        with nogil:
            for row in range(count):
                params.address = <void *> segments[row, 0]
                params.length = segments[row, 1]
                if params.address == NULL or params.length == 0 or segments[row, 0] + segments[row, 1] < segments[row, 0]:
                    status = UCS_ERR_INVALID_PARAM
                    break
                status = ucp_mem_map(self.c.context, &params, &handle)
                if status != UCS_OK:
                    break
                gate_enter(&self.c.gate)
                slot[row] = table_take(&self.c.memory, handle)
                gate_leave(&self.c.gate)
                if slot[row] < 0:
                    ucp_mem_unmap(self.c.context, handle)
                    status = UCS_ERR_NO_MEMORY
                    break
                mapped += 1
        if status != UCS_OK:
            row = mapped
            self.deregister(slots[:mapped])
            raise MemoryRegistrationError(
                f"agent {self.name!r}: UCX could not register segment {row} of {count} "
                f"({segments[row, 1]} bytes at {segments[row, 0]:#x}): {explain(status)}; none was registered",
                agent=self.name, row=row, address=segments[row, 0], length=segments[row, 1], status=explain(status))
        return slots

    def deregister(self, const int32_t[::1] slots):
        cdef int64_t row
        cdef void *handle
        self.check()
        with nogil:
            for row in range(slots.shape[0]):
                gate_enter(&self.c.gate)
                handle = table_give(&self.c.memory, slots[row])
                gate_leave(&self.c.gate)
                if handle != NULL:
                    ucp_mem_unmap(self.c.context, handle)

    def pack_keys(self, const int32_t[::1] slots):
        """Return (data, offset, size) of the remote keys of some slots."""
        cdef int64_t row, count = slots.shape[0]
        cdef ucs_status_t status = UCS_OK
        cdef size_t used = 0, room = 32 * count + 64, packed_size
        cdef void *handle
        cdef void *packed
        cdef char *grown
        cdef char *data = <char *> malloc(room)
        offsets, sizes = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        cdef int64_t[::1] offset = offsets
        cdef int64_t[::1] size = sizes
        try:
            self.check()
            with nogil:
                for row in range(count):
                    gate_enter(&self.c.gate)
                    handle = table_look(&self.c.memory, slots[row])
                    gate_leave(&self.c.gate)
                    status = UCS_ERR_INVALID_PARAM
                    if handle == NULL or data == NULL:
                        break
                    status = ucp_rkey_pack(self.c.context, handle, &packed, &packed_size)
                    if status != UCS_OK:
                        break
                    if used + packed_size > room:
                        room = 2 * room + packed_size
                        grown = <char *> realloc(data, room)
                        if grown == NULL:
                            ucp_rkey_buffer_release(packed)
                            status = UCS_ERR_NO_MEMORY
                            break
                        data = grown
                    memcpy(data + used, packed, packed_size)
                    ucp_rkey_buffer_release(packed)
                    offset[row] = used
                    size[row] = packed_size
                    used += packed_size
            if status != UCS_OK:
                raise NotRegisteredError(
                    f"agent {self.name!r}: no remote key for slot {slots[row]}: {explain(status)}",
                    agent=self.name, slot=slots[row])
            return PyBytes_FromStringAndSize(data, used), offsets, sizes
        finally:
            free(data)

    def progress(self) -> None:
        self.check()
        with nogil:
            if gate_try(&self.c.gate):
                progress(&self.c)
                self.c.polled_ns = now_ns()
                gate_leave(&self.c.gate)

    def run(self, double until) -> None:
        cdef int64_t end = nanoseconds(until)
        cdef bint news = False
        while not news:
            self.check()
            with nogil:
                news = run_slice(&self.c, min(end, now_ns() + SLICE_NS * 20))
            PyErr_CheckSignals()
            if now_ns() >= end:
                return

    def wake(self) -> None:
        self.check()
        with nogil:
            gate_enter(&self.c.gate)
            self.c.is_woken = True
            if self.c.is_sleeping:
                wake_ring(self.c.wake_fd)
            pthread_cond_broadcast(&self.c.resume)
            gate_leave(&self.c.gate)

    def take_finished(self) -> list:
        self.check()
        return self._take_ended()

    cdef list _take_ended(self):
        cdef request_t *request
        cdef list requests = []
        while True:
            gate_enter(&self.c.gate)
            request = self.c.ended_first
            if request != NULL:
                report(request)
            gate_leave(&self.c.gate)
            if request == NULL:
                return requests
            requests.append(<object> request.self)
            Py_DECREF(<object> request.self)

    def take_failed(self) -> list:
        """Return the owners of the endpoints that failed since the last call."""
        cdef endpoint_t *endpoint
        cdef Endpoint failed
        cdef list owners = []
        self.check()
        while True:
            gate_enter(&self.c.gate)
            endpoint = self.c.failed
            failed = None
            if endpoint != NULL:
                self.c.failed = endpoint.next_failed
                endpoint.is_failed = False
                failed = <Endpoint> endpoint.self
            gate_leave(&self.c.gate)
            if failed is None:
                return owners
            owners.append(failed.owner)

    def take_notifications(self) -> tuple:
        cdef payload_t *payload
        cdef payload_t *following
        cdef uint64_t dropped
        cdef list payloads = []
        self.check()
        with nogil:
            gate_enter(&self.c.gate)
            payload = self.c.inbox_first
            self.c.inbox_first = self.c.inbox_last = NULL
            self.c.inbox_count = self.c.inbox_bytes = 0
            dropped = self.c.dropped
            self.c.dropped = 0
            gate_leave(&self.c.gate)
        while payload != NULL:
            following = payload.next
            payloads.append((PyBytes_FromStringAndSize(<char *> (payload + 1), payload.size), payload.id == 1))
            free(payload)
            payload = following
        return payloads, dropped

    def close(self) -> None:
        cdef connection_t *connection
        cdef payload_t *payload
        cdef int64_t end = now_ns() + CLOSE_NS
        cdef int32_t slot
        cdef int idle = 0
        if self.forks != fork_count or self.c.is_closed:
            return
        with nogil:
            gate_enter(&self.c.gate)
            self.c.is_closed = True
            while self.c.is_sleeping:
                wake_ring(self.c.wake_fd)
                bell_wait(&self.c.changed, &self.c.gate, now_ns() + SLICE_NS)
            connection = self.c.connections
            while connection != NULL:
                connection_break(connection, b"the backend was closed", False)
                connection = connection.next
            # UCX still discards a closed endpoint's lanes afterwards, and aborts if its worker is destroyed meanwhile
            # (uct_cma_ep_t in 1.22): drive it until it rests.
            while (self.c.connections != NULL or idle < IDLE_PASSES) and now_ns() < end:
                idle = 0 if progress(&self.c) else idle + 1
            connection = self.c.connections
            while connection != NULL:
                connection_forget_keys(connection)
                connection = connection.next
            ucp_worker_destroy(self.c.ucp)
            self.c.ucp = NULL
            while self.c.ready != NULL:  # UCX ended these with the worker
                self.c.ready.is_ready = False
                advance(self.c.ready)
                self.c.ready = self.c.ready.next_ready
            while self.c.connections != NULL:
                connection_free(self.c.connections)
            pthread_cond_broadcast(&self.c.changed)
            pthread_cond_broadcast(&self.c.resume)
            descriptor_close(self.c.wake_fd)
            self.c.wake_fd = -1
            for slot in range(self.c.memory.size):
                if self.c.memory.slots[slot].handle != NULL:
                    ucp_mem_unmap(self.c.context, self.c.memory.slots[slot].handle)
            ucp_cleanup(self.c.context)
            free(self.c.memory.slots)
            self.c.memory.slots = NULL
            self.c.memory.size = 0
            self.c.failed = NULL
            while self.c.inbox_first != NULL:
                payload = self.c.inbox_first
                self.c.inbox_first = payload.next
                free(payload)
            self.c.inbox_last = NULL
            gate_leave(&self.c.gate)
        self._take_ended()

    def __dealloc__(self):
        self.close()


@cython.no_gc_clear  # __dealloc__ needs `worker`
cdef class Endpoint:
    cdef endpoint_t c
    cdef readonly Worker worker
    cdef readonly bytes address
    cdef readonly object owner

    def __cinit__(self, Worker worker, bytes address, object owner):
        self.worker = worker
        self.address = address
        self.owner = owner
        self.c.self = <void *> self
        self.c.keys.free = -1

    def open(self) -> str | None:
        """Make a connection; return None, or why it can't be made."""
        cdef int status = 0
        cdef size_t size = len(self.address)
        cdef char *padded
        cdef const char *source = PyBytes_AS_STRING(self.address)
        self.worker.check()
        padded = <char *> calloc(1, ADDRESS_ROOM)
        if padded == NULL or size >= ADDRESS_ROOM:
            free(padded)
            raise MemoryError
        memcpy(padded, source, size)
        with nogil:
            gate_enter(&self.worker.c.gate)
            if self.c.connection == NULL:
                connection_open(&self.worker.c, &self.c, padded, &status)
                if status != 0:
                    copy_reason(self.c.failure, ucs_status_string(<ucs_status_t> status))
            gate_leave(&self.worker.c.gate)
        free(padded)
        return None if status == 0 else explain(status)

    @property
    def is_open(self) -> bool:
        return self.c.connection != NULL

    @property
    def failure(self) -> str | None:
        return self.c.failure.decode() if self.c.failure[0] else None

    def load_keys(self, const uint8_t[::1] data, const int64_t[::1] offset, const int64_t[::1] size):
        """Keep remote keys (checked by the caller) and return their slots."""
        cdef int64_t row, count = offset.shape[0]
        cdef void *key
        slots = np.full(count, -1, dtype=np.int32)
        cdef int32_t[::1] slot = slots
        self.worker.check()
        with nogil:
            gate_enter(&self.worker.c.gate)
            for row in range(count):
                key = calloc(1, size[row] + PADDING)
                if key == NULL:
                    break
                memcpy(key, &data[offset[row]], size[row])
                slot[row] = table_take(&self.c.keys, key)
                if slot[row] < 0:
                    free(key)
                    break
            gate_leave(&self.worker.c.gate)
        if count and slots[count - 1] < 0:
            self.unload_keys(slots)
            raise MemoryError
        return slots

    def unload_keys(self, const int32_t[::1] slots) -> None:
        cdef int64_t row
        cdef int32_t slot
        self.worker.check()
        with nogil:
            gate_enter(&self.worker.c.gate)
            for row in range(slots.shape[0]):
                slot = slots[row]
                free(table_give(&self.c.keys, slot))
                if self.c.connection != NULL and 0 <= slot < self.c.connection.keys_size:
                    if self.c.connection.keys[slot] != NULL:
                        ucp_rkey_destroy(self.c.connection.keys[slot])
                        self.c.connection.keys[slot] = NULL
            gate_leave(&self.worker.c.gate)

    def prepare(self, posting):
        return Request(self, posting)

    def send(self, bytes payload, bint failure):
        cdef Request request = Request(self, None)
        request.c.notification_id = 1 if failure else 0
        request._post(payload)
        return request

    def transports(self) -> tuple:
        cdef ucp_transport_entry_t entries[16]
        cdef ucp_ep_attr_t attributes
        cdef ucs_status_t status = UCS_ERR_NOT_CONNECTED
        cdef unsigned row
        cdef list names = []
        self.worker.check()
        attributes.field_mask = UCP_EP_ATTR_FIELD_TRANSPORTS
        attributes.transports.entries = entries
        attributes.transports.num_entries = 16
        attributes.transports.entry_size = sizeof(ucp_transport_entry_t)
        gate_enter(&self.worker.c.gate)
        if self.c.connection != NULL:
            status = ucp_ep_query(self.c.connection.ep, &attributes)
        gate_leave(&self.worker.c.gate)
        if status == UCS_OK:
            for row in range(attributes.transports.num_entries):
                name = f"{entries[row].transport_name.decode()}/{entries[row].device_name.decode()}"
                if name not in names:
                    names.append(name)
        return tuple(names)

    def abort(self, str reason, double timeout) -> bool:
        """Break the connection and drive until its requests are quiet; return whether they are."""
        cdef bytes encoded = reason.encode()
        cdef const char *text = PyBytes_AS_STRING(encoded)
        cdef connection_t *connection
        cdef connection_t *other
        cdef int64_t end = now_ns() + nanoseconds(timeout)
        cdef int users = 0
        self.worker.check()
        with nogil:
            gate_enter(&self.worker.c.gate)
            connection = self.c.connection
            if connection != NULL:
                connection_break(connection, text, False)
                while True:
                    progress(&self.worker.c)
                    other = self.worker.c.connections
                    while other != NULL and other != connection:
                        other = other.next
                    users = 0 if other == NULL else other.users
                    if users == 0 or now_ns() >= end:
                        break
                    gate_leave(&self.worker.c.gate)
                    gate_yield(&self.worker.c.gate)
                    gate_enter(&self.worker.c.gate)
            gate_leave(&self.worker.c.gate)
        return users == 0

    def close(self) -> None:
        """Let go of the connection in good order; nothing is in flight on it."""
        cdef int32_t slot
        if self.worker.forks != fork_count:
            return
        with nogil:
            gate_enter(&self.worker.c.gate)
            self._leave()
            for slot in range(self.c.keys.size):
                free(self.c.keys.slots[slot].handle)
            free(self.c.keys.slots)
            self.c.keys.slots = NULL
            self.c.keys.size = 0
            self.c.keys.free = -1
            gate_leave(&self.worker.c.gate)

    cdef void _leave(self) noexcept nogil:
        cdef endpoint_t **link = &self.worker.c.failed
        cdef connection_t *connection = self.c.connection
        if self.c.is_failed and not self.worker.c.is_closed:
            while link[0] != &self.c:
                link = &link[0].next_failed
            link[0] = self.c.next_failed
            self.c.is_failed = False
        if connection != NULL and not self.worker.c.is_closed:
            copy_reason(connection.reason, b"the peer was closed")
            connection.is_broken = connection.users > 0
            connection_detach(connection)
            connection_close(connection, connection.users > 0)

    def __dealloc__(self):
        self.close()


cdef class Request:
    cdef request_t c
    cdef bint is_posting
    cdef Worker worker
    cdef Endpoint endpoint
    cdef object posting
    cdef bytes payload
    cdef const uint64_t[::1] local
    cdef const uint64_t[::1] remote
    cdef const uint64_t[::1] length
    cdef const int32_t[::1] local_slot
    cdef const int32_t[::1] remote_slot
    cdef public object owner

    def __cinit__(self, Endpoint endpoint, object posting):
        cdef int64_t rows = 0
        self.endpoint = endpoint
        self.worker = endpoint.worker
        self.posting = posting
        self.c.self = <void *> self
        self.c.worker = &self.worker.c
        if posting is None:
            return
        self.local = posting.local_address
        self.remote = posting.remote_address
        self.length = posting.length
        self.local_slot = posting.local_slot
        self.remote_slot = posting.remote_slot
        rows = self.length.shape[0]
        if not (self.local.shape[0] == self.remote.shape[0] == self.local_slot.shape[0]
                == self.remote_slot.shape[0] == rows):
            raise ValueError("the arrays of a posting must have the same length")
        self.c.write = posting.operation == 1
        self.c.rows = rows
        if rows:
            self.c.local = &self.local[0]
            self.c.remote = &self.remote[0]
            self.c.length = &self.length[0]
            self.c.local_slot = &self.local_slot[0]
            self.c.remote_slot = &self.remote_slot[0]

    def post(self, bytes notification=None):
        self.c.notification_id = 0
        return self._post(notification)

    cdef object _post(self, bytes notification):
        cdef int64_t started = now_ns()
        cdef int status, passes
        cdef worker_t *worker = &self.worker.c
        self.worker.check()
        if self.is_posting or self.c.status == IN_PROGRESS:
            raise TransferStateError("the request is already in progress; wait for it before posting it again")
        self._seen()  # an end nobody has asked for
        self.is_posting = True  # under the GIL
        self.payload = notification
        self.c.notifies = notification is not None
        if notification is not None:
            self.c.notification = PyBytes_AS_STRING(notification)
            self.c.notification_size = PyBytes_GET_SIZE(notification)
        if self.endpoint.c.connection == NULL:
            try:
                reason = self.endpoint.owner.reopen()
            except BaseException:
                self.is_posting = False
                raise
            if reason is not None:
                self._refuse(reason, started)
                return status_object(FAILED)
        Py_INCREF(self)
        with nogil:
            gate_enter(&worker.gate)
            self.c.started_ns = started
            self.c.total_ns = 0
            self.c.row = self.c.completed = 0
            self.c.row_offset = 0
            self.c.error = 0
            self.c.reason[0] = 0
            self.c.stopping = False
            self.c.phase = MOVING
            self.c.status = IN_PROGRESS
            self.c.connection = self.endpoint.c.connection
            if self.c.connection == NULL or worker.is_closed:  # broken this very moment
                self.c.connection = NULL
                copy_reason(self.c.reason, self.endpoint.c.failure)
                finish(&self.c, FAILED)
            else:
                self.c.connection.users += 1
                advance(&self.c)
                if self.c.status == IN_PROGRESS and self.c.row == self.c.rows and self._is_small():
                    for passes in range(INLINE_PASSES):
                        progress(worker)
                        if self.c.status != IN_PROGRESS:
                            break
            if worker.unsettled:
                settle(worker)
            status = self.c.status
            if status != IN_PROGRESS:
                report(&self.c)
            elif worker.is_sleeping:
                wake_ring(worker.wake_fd)
            gate_leave(&worker.gate)
        self.is_posting = False
        if status != IN_PROGRESS:
            Py_DECREF(self)
        self.c.post_ns = now_ns() - started
        return status_object(status)

    cdef bint _is_small(self) noexcept nogil:
        return self.c.rows == 0 or (self.c.rows == 1 and self.c.length[0] <= INLINE_BYTES)

    cdef _refuse(self, str reason, int64_t started):
        cdef bytes encoded = reason.encode()
        copy_reason(self.c.reason, PyBytes_AS_STRING(encoded))
        self.c.completed = 0
        self.c.status = FAILED
        self.c.post_ns = self.c.total_ns = now_ns() - started
        self.is_posting = False

    cdef object _seen(self):
        """Report the end, if there is one, exactly once."""
        cdef bint mine
        cdef int status = self.c.status
        if status != IN_PROGRESS and self.c.is_ended:
            gate_enter(&self.worker.c.gate)
            mine = report(&self.c)
            gate_leave(&self.worker.c.gate)
            if mine:
                Py_DECREF(self)
        return status_object(status)

    def poll(self):
        cdef worker_t *worker = &self.worker.c
        if self.c.status == IN_PROGRESS:
            self.worker.check()
            with nogil:
                if gate_try(&worker.gate):
                    progress(worker)
                    worker.polled_ns = now_ns()
                    gate_leave(&worker.gate)
        return self._seen()

    def wait(self, double until):
        cdef int64_t end = nanoseconds(until)
        cdef int64_t now
        while self.c.status == IN_PROGRESS:
            self.worker.check()
            with nogil:
                now = now_ns()
                wait_slice(&self.c, min(end, now + SLICE_NS))
            if self.c.status != IN_PROGRESS or now_ns() >= end:
                break
            PyErr_CheckSignals()
        return self._seen()

    def stop(self) -> None:
        self.worker.check()
        gate_enter(&self.worker.c.gate)
        self.c.stopping = True
        gate_leave(&self.worker.c.gate)

    @property
    def status(self):
        return status_object(self.c.status)

    @property
    def reason(self) -> str:
        return self.c.reason.decode() if self.c.status == FAILED else ""

    @property
    def completed(self) -> int:
        return self.c.completed

    @property
    def post_ns(self) -> int:
        return self.c.post_ns

    @property
    def total_ns(self) -> int:
        return self.c.total_ns
