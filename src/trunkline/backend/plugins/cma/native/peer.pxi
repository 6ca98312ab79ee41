@cython.no_gc_clear
cdef class Link:
    cdef link_t c
    cdef readonly Engine engine
    cdef readonly object owner
    cdef bint is_listed

    def __cinit__(self, Engine engine, object owner):
        self.engine = engine
        self.owner = owner
        engine.check()
        self.c.engine = &engine.c
        self.c.self = <void *> self
        self.c.socket = self.c.pidfd = -1
        pthread_mutex_lock(&engine.c.gate)
        self.c.next = engine.c.links
        if self.c.next != NULL:
            self.c.next.previous = &self.c
        engine.c.links = &self.c
        self.is_listed = True
        pthread_mutex_unlock(&engine.c.gate)

    def connect(self, bytes name) -> int:
        cdef int error
        self._enter()
        link_disconnect(&self.c)
        self.c.socket = socket_open()
        error = errno if self.c.socket < 0 else 0
        error = error or socket_connect(self.c.socket, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        if error:
            link_disconnect(&self.c)
        pthread_mutex_unlock(&self.engine.c.gate)
        return error

    def process(self) -> tuple:
        cdef unsigned uid = 0
        cdef int pid = 0
        cdef int error
        self._enter()
        error = socket_owner(self.c.socket, &pid, &uid)
        pthread_mutex_unlock(&self.engine.c.gate)
        if error:
            raise OSError(error, os.strerror(error))
        return pid, uid

    def receive(self):
        cdef char data[HELLO_SIZE]
        cdef ssize_t size
        cdef int error
        self._enter()
        size = recv(self.c.socket, data, HELLO_SIZE, MSG_DONTWAIT | MSG_TRUNC)
        error = errno
        pthread_mutex_unlock(&self.engine.c.gate)
        if size < 0:
            return None if error == EAGAIN else b""
        return PyBytes_FromStringAndSize(data, min(size, HELLO_SIZE))

    def prove(self, int pid, uint64_t address, bytes nonce) -> int:
        """Return 0, the kernel's errno, or -1 where the nonce is another one."""
        cdef char copied[NONCE_SIZE]
        cdef iovec here, there
        cdef engine_t *engine = &self.engine.c
        cdef const char *expected = PyBytes_AS_STRING(nonce)
        cdef int error = 0
        if PyBytes_GET_SIZE(nonce) != NONCE_SIZE:
            raise ValueError(f"a nonce has {NONCE_SIZE} bytes, not {len(nonce)}")
        here.iov_base, here.iov_len = copied, NONCE_SIZE
        there.iov_base, there.iov_len = <void *> address, NONCE_SIZE
        self._hold()
        with nogil:
            self.c.pidfd = pidfd_open(pid)
            errno_clear()
            if process_vm_readv(pid, &here, 1, &there, 1, 0) != NONCE_SIZE:
                error = errno if errno else EFAULT
            elif memcmp(copied, expected, NONCE_SIZE):
                error = -1
            elif has_event(self.c.socket, self.c.pidfd, 0):
                error = ESRCH
            pthread_mutex_lock(&engine.gate)
            self.c.copying -= 1
            engine.copying -= 1
            if not error and not engine.is_closed:
                error = events_want(engine.epoll, self.c.socket)
            if not error and not engine.is_closed:
                if self.c.pidfd >= 0:
                    events_want(engine.epoll, self.c.pidfd)
                self.c.pid = pid
                self.c.life = READY
            if error and not engine.is_closed:
                link_disconnect(&self.c)
            pthread_cond_broadcast(&engine.changed)
            pthread_mutex_unlock(&engine.gate)
        return error

    cdef _enter(self):
        """Take the gate of an engine that is not closed: until it is given back the descriptors stay what they are."""
        self.engine.check()
        pthread_mutex_lock(&self.engine.c.gate)
        if self.engine.c.is_closed:  # this very moment: `close` holds no GIL
            pthread_mutex_unlock(&self.engine.c.gate)
            self.engine.check()

    cdef _hold(self):
        """Keep the descriptors open; undone by counting `copying` down again."""
        self._enter()
        self.c.copying += 1
        self.engine.c.copying += 1
        pthread_mutex_unlock(&self.engine.c.gate)

    def wait(self, double seconds) -> None:
        cdef int timeout = <int> max(0, min(50, seconds * 1000 + 1))
        self._hold()
        with nogil:
            has_event(self.c.socket, -1, timeout)
            pthread_mutex_lock(&self.engine.c.gate)
            self.c.copying -= 1
            self.engine.c.copying -= 1
            pthread_cond_broadcast(&self.engine.c.changed)
            pthread_mutex_unlock(&self.engine.c.gate)

    def hang_up(self) -> None:
        if self.engine.forks != fork_count:
            return
        pthread_mutex_lock(&self.engine.c.gate)
        if self.c.life == UNREADY and not self.c.copying and not self.engine.c.is_closed:
            link_disconnect(&self.c)
        pthread_mutex_unlock(&self.engine.c.gate)

    @property
    def is_ready(self) -> bool:
        """Whether it can be used, as seen now."""
        if self.c.life != READY or self.engine.c.is_closed or self.engine.forks != fork_count:
            return False
        pthread_mutex_lock(&self.engine.c.gate)
        link_check(&self.c)
        pthread_mutex_unlock(&self.engine.c.gate)
        return self.c.life == READY

    @property
    def is_broken(self) -> bool:
        return self.c.life == BROKEN

    @property
    def reason(self) -> str:
        return self.c.reason.decode("utf-8", "replace")

    def prepare(self, object posting):
        self.engine.check()
        return Request(self, posting)

    def abort(self, str reason) -> None:
        cdef bytes encoded = reason.encode()
        cdef const char *text = PyBytes_AS_STRING(encoded)
        self.engine.check()
        with nogil:
            pthread_mutex_lock(&self.engine.c.gate)
            link_quieten(&self.c, text)
            pthread_mutex_unlock(&self.engine.c.gate)

    def close(self) -> None:
        if self.engine.forks != fork_count or not self.is_listed:
            return
        self.is_listed = False
        pthread_mutex_lock(&self.engine.c.gate)
        link_forget_failure(&self.c)
        if self.c.previous != NULL:
            self.c.previous.next = self.c.next
        else:
            self.engine.c.links = self.c.next
        if self.c.next != NULL:
            self.c.next.previous = self.c.previous
        if self.c.life != BROKEN:
            self.c.life = UNREADY
            copy_reason(self.c.reason, b"the peer was closed")
        pthread_mutex_unlock(&self.engine.c.gate)
        with nogil:
            pthread_mutex_lock(&self.engine.c.gate)
            link_quieten(&self.c, self.c.reason)
            link_disconnect(&self.c)
            pthread_mutex_unlock(&self.engine.c.gate)

    def __dealloc__(self):
        self.close()


cdef void link_quieten(link_t *link, const char *reason) noexcept nogil:
    """Fail what is posted to a link and wait for the copies under way. The gate is held, and let go meanwhile."""
    cdef engine_t *engine = link.engine
    cdef request_t *request
    fail_all(engine, link, reason)
    while link.copying:
        bell_wait(&engine.changed, &engine.gate, now_ns() + SLICE_NS)
    if engine.is_sleeping:
        wake_ring(engine.wake_fd)
