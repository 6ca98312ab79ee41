@cython.no_gc_clear
cdef class Engine:
    cdef engine_t c
    cdef unsigned forks
    cdef readonly str name
    cdef object __weakref__

    def __cinit__(self, str name, *, int connections=1024):
        self.name = name
        self.forks = fork_count
        self.c.epoll = self.c.wake_fd = self.c.listener = -1
        self.c.accepted_limit = connections
        pthread_mutex_init(&self.c.gate, NULL)
        bell_open(&self.c.changed)
        self.c.accepted = <int *> calloc(max(1, connections), sizeof(int))
        self.c.page = page_open(PAGE_SIZE)
        if self.c.accepted == NULL or self.c.page == NULL:
            raise MemoryError("no memory for the backend's tables")
        if getrandom(self.c.page, NONCE_SIZE, 0) != NONCE_SIZE:
            raise self._unavailable("getrandom", errno)
        self._try_kernel()
        self.c.epoll = epoll_open()
        self.c.wake_fd = wake_open()
        if self.c.epoll < 0 or self.c.wake_fd < 0 or events_want(self.c.epoll, self.c.wake_fd):
            raise self._unavailable("an event descriptor", errno)

    cdef object _unavailable(self, str what, int error):
        return BackendUnavailableError(
            f"agent {self.name!r}: cross-memory attach can't be used here: {what}: {os.strerror(error)} (errno {error})",
            agent=self.name,
        )

    cdef _try_kernel(self):
        cdef char copied[NONCE_SIZE]
        cdef iovec here, there
        here.iov_base, here.iov_len = copied, NONCE_SIZE
        there.iov_base, there.iov_len = self.c.page, NONCE_SIZE
        if process_vm_readv(getpid(), &here, 1, &there, 1, 0) != NONCE_SIZE:
            raise self._unavailable("process_vm_readv is refused by the kernel or the container's seccomp filter", errno)

    @property
    def nonce_address(self) -> int:
        return <uint64_t> self.c.page

    @property
    def nonce(self) -> bytes:
        self.check()
        return PyBytes_FromStringAndSize(<char *> self.c.page, NONCE_SIZE)

    def listen(self, bytes name, bytes hello) -> None:
        cdef int error
        if PyBytes_GET_SIZE(hello) > HELLO_SIZE:
            raise ValueError(f"a greeting of {len(hello)} bytes is longer than {HELLO_SIZE}")
        memcpy(self.c.hello, PyBytes_AS_STRING(hello), PyBytes_GET_SIZE(hello))
        self.c.hello_size = PyBytes_GET_SIZE(hello)
        self.c.listener = socket_open()
        error = errno if self.c.listener < 0 else 0
        error = error or socket_listen(self.c.listener, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        error = error or events_want(self.c.epoll, self.c.listener)
        if error:
            raise self._unavailable("an abstract Unix socket", error)
        self.c.is_listening = True

    @property
    def is_closed(self) -> bool:
        return self.c.is_closed

    @property
    def connections(self) -> int:
        return self.c.accepted_count

    cpdef check(self):
        if self.forks != fork_count:
            raise ForkedError(f"agent {self.name!r} belongs to the parent process: make a new Agent after fork")
        if self.c.is_closed:
            raise ClosedError(f"the CMA backend of agent {self.name!r} is closed", agent=self.name)

    def progress(self) -> bool:
        cdef bint news
        self.check()
        with nogil:
            pthread_mutex_lock(&self.c.gate)
            if not self.c.is_closed:
                copy_any(&self.c)
            if not self.c.is_closed and not self.c.is_sleeping:
                look_around(&self.c, 0)
            self.c.polled_ns = now_ns()
            news = self.c.ended_first != NULL
            pthread_mutex_unlock(&self.c.gate)
        return news

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
        pthread_mutex_lock(&self.c.gate)
        self.c.is_woken = True
        if self.c.is_sleeping:
            wake_ring(self.c.wake_fd)
        pthread_mutex_unlock(&self.c.gate)

    def take_finished(self) -> list:
        self.check()
        return self._take_ended(False)

    cdef list _take_ended(self, bint watched):
        cdef request_t *request
        cdef list requests = []
        while True:
            pthread_mutex_lock(&self.c.gate)
            request = self.c.ended_first
            while request != NULL and request.watchers and not watched:
                request = request.next
            if request != NULL:
                report(request)
            pthread_mutex_unlock(&self.c.gate)
            if request == NULL:
                return requests
            requests.append(<object> request.self)
            Py_DECREF(<object> request.self)

    def take_failed(self) -> list:
        cdef link_t *link
        cdef Link failed
        cdef list owners = []
        self.check()
        while True:
            failed = None
            pthread_mutex_lock(&self.c.gate)
            link = self.c.failed
            if link != NULL:
                link_forget_failure(link)
                failed = <Link> link.self
            pthread_mutex_unlock(&self.c.gate)
            if failed is None:
                return owners
            owners.append(failed.owner)

    def close(self) -> None:
        cdef link_t *link
        if self.forks != fork_count or self.c.is_closed:
            return
        with nogil:
            pthread_mutex_lock(&self.c.gate)
            self.c.is_closed = True
            fail_all(&self.c, NULL, b"the backend was closed")
            while self.c.is_sleeping or self.c.copying:
                if self.c.is_sleeping:
                    wake_ring(self.c.wake_fd)
                bell_wait(&self.c.changed, &self.c.gate, now_ns() + SLICE_NS)
            link = self.c.links
            while link != NULL:
                link_forget_failure(link)
                link.life = UNREADY
                copy_reason(link.reason, b"the backend was closed")
                link_disconnect(link)
                link = link.next
            while self.c.accepted_count:
                accepted_close(&self.c, self.c.accepted_count - 1)
            descriptor_close(self.c.listener)
            descriptor_close(self.c.epoll)
            descriptor_close(self.c.wake_fd)
            self.c.listener = self.c.epoll = self.c.wake_fd = -1
            if self.c.page != NULL:
                munmap(self.c.page, PAGE_SIZE)
            free(self.c.accepted)
            self.c.page = self.c.accepted = NULL
            pthread_mutex_unlock(&self.c.gate)
        self._take_ended(True)

    def __dealloc__(self):
        self.close()
