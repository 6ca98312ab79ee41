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
        self.c.identity = worker_identity(address)
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
                status = connection_open(&self.worker.c, &self.c, padded)
                padded = NULL
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
        return self.c.failure.decode("utf-8", "replace") if self.c.failure[0] else None

    def load_keys(self, const uint64_t[:, ::1] segments, const uint8_t[::1] data, const int64_t[::1] offset,
                  const int64_t[::1] size):
        """Keep the keys of remote segments (checked by the caller) and return their slots."""
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
                slot[row] = table_take(&self.c.keys, key, segments[row, 0], segments[row, 1])
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
        self.worker.check()
        with nogil:
            gate_enter(&self.worker.c.gate)
            for row in range(slots.shape[0]):
                free(table_give(&self.c.keys, slots[row]))
                if self.c.connection != NULL:
                    connection_retire_key(self.c.connection, slots[row])
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
        cdef char copies[16][2][64]  # the names belong to UCX's context
        cdef list names = []
        self.worker.check()
        attributes.field_mask = UCP_EP_ATTR_FIELD_TRANSPORTS
        attributes.transports.entries = entries
        attributes.transports.num_entries = 16
        attributes.transports.entry_size = sizeof(ucp_transport_entry_t)
        gate_enter(&self.worker.c.gate)
        if self.c.connection != NULL and self.c.connection.ep != NULL:
            status = ucp_ep_query(self.c.connection.ep, &attributes)
        if status == UCS_OK:
            for row in range(attributes.transports.num_entries):
                copy_text(copies[row][0], entries[row].transport_name, sizeof(copies[row][0]))
                copy_text(copies[row][1], entries[row].device_name, sizeof(copies[row][1]))
        gate_leave(&self.worker.c.gate)
        if status == UCS_OK:
            for row in range(attributes.transports.num_entries):
                name = f"{copies[row][0].decode()}/{copies[row][1].decode()}"
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
        """Let go of the connection, in good order if nothing is in flight on it; else by force."""
        if self.worker.forks == fork_count:
            with nogil:
                self._leave()

    cdef void _leave(self) noexcept nogil:
        cdef endpoint_t **link = &self.worker.c.failed
        cdef connection_t *connection
        cdef int32_t slot
        gate_enter(&self.worker.c.gate)
        while link[0] != NULL:
            if link[0] == &self.c:
                link[0] = self.c.next_failed
                break
            link = &link[0].next_failed
        self.c.is_failed = False
        connection = self.c.connection
        if connection != NULL:
            copy_reason(connection.reason, b"the peer was closed")
            copy_reason(self.c.failure, b"the peer was closed")
            connection.is_broken = connection.users > 0
            connection_detach(connection)
            connection_release(connection)
            if not connection.is_broken:  # else `settle` closes it by force
                connection_close(connection, False)
            tell(&self.worker.c)  # closing takes progress
        for slot in range(self.c.keys.size):
            free(self.c.keys.slots[slot].handle)
        free(self.c.keys.slots)
        self.c.keys.slots = NULL
        self.c.keys.size = 0
        self.c.keys.free = -1
        gate_leave(&self.worker.c.gate)

    def __dealloc__(self):
        if self.worker.forks == fork_count:
            self._leave()  # with the GIL: else `take_failed` in another thread could hand out what is being freed
