cdef class Worker:
    cdef worker_t c
    cdef unsigned forks
    cdef readonly str name
    cdef readonly uint64_t memory_types

    def __cinit__(self):
        self.c.memory.free = -1
        self.c.event_fd = self.c.wake_fd = self.c.left.epoll = -1
        self.c.is_closed = True

    def __init__(self, str name, dict config, *, size_t notification_count, size_t notification_bytes):
        cdef ucp_config_t *settings
        cdef ucp_params_t params
        cdef ucp_worker_params_t worker_params
        cdef ucp_context_attr_t attributes
        cdef ucs_status_t status
        cdef bytes encoded = name.encode()
        global _request_size
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
                UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_REQUEST_INIT | UCP_PARAM_FIELD_MT_WORKERS_SHARED
                | UCP_PARAM_FIELD_NAME)
            params.features = (
                UCP_FEATURE_RMA | UCP_FEATURE_AMO32 | UCP_FEATURE_AMO64 | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP)
            params.request_init = request_made
            params.mt_workers_shared = 1  # memory is registered without the gate
            params.name = PyBytes_AS_STRING(encoded)
            with nogil:
                status = ucp_init(&params, settings, &self.c.context)
            self._demand(status, "make a UCX context")
        finally:
            ucp_config_release(settings)
        try:
            attributes.field_mask = UCP_ATTR_FIELD_REQUEST_SIZE | UCP_ATTR_FIELD_MEMORY_TYPES
            self._demand(ucp_context_query(self.c.context, &attributes), "query the UCX context")
            _request_size = attributes.request_size
            self.memory_types = attributes.memory_types
            worker_params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE
            worker_params.thread_mode = UCS_THREAD_MODE_SERIALIZED
            with nogil:
                status = ucp_worker_create(self.c.context, &worker_params, &self.c.ucp)
            self._demand(status, "make a UCX worker; does a network device of that name exist (devices=, UCX_NET_DEVICES)?")
        except BaseException:
            ucp_cleanup(self.c.context)
            raise
        bell_open(&self.c.changed)
        bell_open(&self.c.resume)
        self.c.is_closed = False
        try:
            self._listen(0, notification_arrived)
            self._listen(1, failure_arrived)
            self._demand(ucp_worker_get_efd(self.c.ucp, &self.c.event_fd), "get the UCX worker's event descriptor")
            close_on_exec(self.c.event_fd)
            self.c.wake_fd = wake_open()
            if self.c.wake_fd < 0 or left_open(&self.c.left) < 0:
                raise BackendUnavailableError("eventfd or epoll_create1 failed: too many open files?", agent=name)
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
        cdef char copy[ADDRESS_ROOM]
        cdef size_t size = 0
        cdef ucs_status_t status
        self.check()
        attributes.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS
        with nogil:
            gate_enter(&self.c.gate)
            status = UCS_ERR_CANCELED
            if self.c.ucp != NULL:  # not closed meanwhile
                status = ucp_worker_query(self.c.ucp, &attributes)
            if status == UCS_OK:
                size = attributes.address_length
                if size <= sizeof(copy):
                    memcpy(copy, attributes.address, size)
                ucp_worker_release_address(self.c.ucp, attributes.address)
            gate_leave(&self.c.gate)
        self.check()
        self._demand(status if size <= sizeof(copy) else UCS_ERR_NO_MEMORY, "get the UCX worker's address")
        return copy[:size]

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
                slot[row] = table_take(&self.c.memory, handle, segments[row, 0], segments[row, 1])
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

    def progress(self) -> bool:
        self.check()
        with nogil:
            if gate_try(&self.c.gate):
                progress(&self.c)
                self.c.polled_ns = now_ns()
                gate_leave(&self.c.gate)
        return self.c.ended_first != NULL or self.c.inbox_first != NULL

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
            left_close(&self.c.left)
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
