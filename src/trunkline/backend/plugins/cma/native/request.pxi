cdef class Request:
    cdef request_t c
    cdef bint is_posting
    cdef Engine engine
    cdef Link link
    cdef object posting
    cdef const uint64_t[::1] local
    cdef const uint64_t[::1] remote
    cdef const uint64_t[::1] length
    cdef public object owner

    def __cinit__(self, Link link, object posting):
        cdef int64_t row, rows
        cdef uint64_t most = 1 << 62
        self.link = link
        self.engine = link.engine
        self.posting = posting
        self.c.self = <void *> self
        self.c.engine = &link.engine.c
        self.c.link = &link.c
        self.local = posting.local_address
        self.remote = posting.remote_address
        self.length = posting.length
        rows = self.length.shape[0]
        if not (self.local.shape[0] == self.remote.shape[0] == rows):
            raise ValueError("the arrays of a posting must have the same length")
        self.c.write = posting.operation == 1
        self.c.rows = rows
        for row in range(LANES):
            self.c.lanes[row] = -1
        if rows:
            self.c.local = &self.local[0]
            self.c.remote = &self.remote[0]
            self.c.length = &self.length[0]
        with nogil:
            for row in range(rows):
                self.c.weight += min(weigh(min(self.c.length[row], most)), most - min(self.c.weight, most))

    def post(self, bytes notification=None):
        cdef int64_t now, started = now_ns()
        cdef engine_t *engine = &self.engine.c
        cdef int status
        if notification is not None:
            raise BackendError("cross-memory attach carries no notifications; another backend of the agent does")
        self.engine.check()
        if self.is_posting or self.c.status == IN_PROGRESS:
            raise TransferStateError("the request is already in progress; wait for it before posting it again")
        self._seen()  # an end nobody has asked for
        self.is_posting = True  # under the GIL
        try:
            obstacle = None if self.c.link.life == READY else self.link.owner.obstacle
        except BaseException:
            self.is_posting = False
            raise
        if obstacle is not None:
            self._refuse(obstacle, started)
            return status_object(FAILED)
        Py_INCREF(self)
        with nogil:
            pthread_mutex_lock(&engine.gate)
            self.c.started_ns = started
            self.c.total_ns = 0
            self.c.row = 0
            self.c.offset = 0
            self.c.left = self.c.weight
            self.c.error_row = self.c.rows
            self.c.reason[0] = 0
            self.c.stopping = False
            self.c.status = IN_PROGRESS
            self.c.watchers += 1
            if engine.is_closed or self.c.link.life != READY:  # this very moment
                fail(&self.c, self.c.link.reason)
                fail(&self.c, b"the backend was closed")
            elif self.c.rows == 0:
                finish(&self.c, DONE)
            else:
                open_push(&self.c)
                post_inline(&self.c)
            self.c.watchers -= 1
            status = self.c.status
            now = started + self.c.total_ns if status != IN_PROGRESS else now_ns()
            if status != IN_PROGRESS:
                engine.polled_ns = now
                if not report(&self.c):  # `close` was faster
                    status = IN_PROGRESS
            pthread_mutex_unlock(&engine.gate)
        self.is_posting = False
        if status != IN_PROGRESS:
            Py_DECREF(self)
        self.c.post_ns = now - started
        return status_object(self.c.status)

    cdef _refuse(self, str reason, int64_t started):
        cdef bytes encoded = reason.encode()
        copy_reason(self.c.reason, PyBytes_AS_STRING(encoded))
        self.c.row = self.c.error_row = 0
        self.c.status = FAILED
        self.c.post_ns = self.c.total_ns = now_ns() - started
        self.is_posting = False

    cdef object _seen(self):
        """Report the end, if there is one, exactly once."""
        cdef bint mine
        cdef int status = self.c.status
        if status != IN_PROGRESS and self.c.is_ended and self.engine.forks == fork_count:
            pthread_mutex_lock(&self.engine.c.gate)
            mine = report(&self.c)
            pthread_mutex_unlock(&self.engine.c.gate)
            if mine:
                Py_DECREF(self)
        return status_object(status)

    def poll(self):
        if self.c.status == IN_PROGRESS:
            self.engine.check()
            with nogil:
                pthread_mutex_lock(&self.engine.c.gate)
                copy_one(&self.engine.c, &self.c)
                self.engine.c.polled_ns = now_ns()
                pthread_mutex_unlock(&self.engine.c.gate)
        return self._seen()

    def wait(self, double until):
        cdef int64_t end = nanoseconds(until)
        while self.c.status == IN_PROGRESS:
            self.engine.check()
            with nogil:
                wait_slice(&self.c, min(end, now_ns() + SLICE_NS))
            if self.c.status != IN_PROGRESS or now_ns() >= end:
                break
            PyErr_CheckSignals()
        return self._seen()

    def stop(self) -> None:
        self.engine.check()
        pthread_mutex_lock(&self.engine.c.gate)
        if self.c.status == IN_PROGRESS:
            self.c.stopping = True
            open_remove(&self.c)
            finish_if_quiet(&self.c)
            if self.engine.c.is_sleeping:
                wake_ring(self.engine.c.wake_fd)
        pthread_mutex_unlock(&self.engine.c.gate)

    @property
    def reason(self) -> str:
        return self.c.reason.decode("utf-8", "replace") if self.c.status == FAILED else ""

    @property
    def completed(self) -> int:
        cdef int64_t rows
        if self.c.status == IDLE or self.engine.forks != fork_count:
            return 0
        pthread_mutex_lock(&self.engine.c.gate)
        rows = completed(&self.c)
        pthread_mutex_unlock(&self.engine.c.gate)
        return rows

    @property
    def post_ns(self) -> int:
        return self.c.post_ns

    @property
    def total_ns(self) -> int:
        return self.c.total_ns
