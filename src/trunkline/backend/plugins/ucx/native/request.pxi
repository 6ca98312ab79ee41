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
            worker.polled_ns = now_ns()
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
        if status != IN_PROGRESS and self.c.is_ended and self.worker.forks == fork_count:
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
        if self.c.is_held:  # nothing of it was posted
            connection_drop(self.c.connection, &self.c)
            finish(&self.c, STOPPED)
        gate_leave(&self.worker.c.gate)

    @property
    def status(self):
        return status_object(self.c.status)

    @property
    def reason(self) -> str:
        return self.c.reason.decode("utf-8", "replace") if self.c.status == FAILED else ""

    @property
    def completed(self) -> int:
        return self.c.completed

    @property
    def post_ns(self) -> int:
        return self.c.post_ns

    @property
    def total_ns(self) -> int:
        return self.c.total_ns
