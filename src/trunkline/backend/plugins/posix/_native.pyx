# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""File input and output by threads that hold no GIL. `_native.pyi` documents it."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from trunkline.backend.contract import Status
from trunkline.errors import ClosedError, ForkedError, TransferStateError

include "native/system.pxi"
include "native/moving.pxi"
include "native/queue.pxi"

watch_forks()

cdef tuple _STATUSES = tuple(Status(value) for value in range(-2, 3))
cdef int64_t _NEVER = 1 << 62
cdef int64_t _SIGNALS = 100_000_000  # a waiting caller looks for signals this often, in nanoseconds
# Who polls again within the first of these nanoseconds does nothing else: let him leave the processor to the workers.
cdef int64_t _EAGER = 20_000
cdef int64_t _NAP = 100_000


cdef inline int64_t nanoseconds(double seconds) noexcept:
    return _NEVER if seconds > 4e9 else <int64_t> (seconds * 1e9)


def direct_alignment(int descriptor):
    cdef uint32_t memory = 0, offset = 0
    if direct_io_alignment(descriptor, &memory, &offset) and memory and offset:
        return memory, offset
    return None


@cython.final
cdef class File:
    cdef file_t file
    cdef Pool pool

    def __cinit__(self, Pool pool, int descriptor, uint32_t block):
        self.file.descriptor = descriptor
        self.file.block = block
        self.file.uses = 1  # the registration's
        self.pool = pool

    @property
    def descriptor(self):
        return self.file.descriptor

    def close(self):
        cdef int descriptor = -1
        if self.pool.forks != fork_count:
            return
        with nogil:
            lock(&self.pool.pool)
            if not self.file.retired:
                self.file.retired = 1
                descriptor = file_release(&self.file)
            unlock(&self.pool.pool)
            if descriptor >= 0:
                close(descriptor)


@cython.final
cdef class Pool:
    cdef pool_t pool
    cdef unsigned forks
    cdef str name
    cdef set in_flight  # jobs that run, or whose end nobody has seen yet

    def __cinit__(self, str name):
        self.name = name
        self.forks = fork_count
        self.in_flight = set()
        pool_open(&self.pool)

    def check(self):
        if self.forks != fork_count:
            raise ForkedError(f"agent {self.name!r} belongs to the parent process: make a new Agent after fork")
        if self.pool.closing:
            raise ClosedError(f"the POSIX backend of agent {self.name!r} is closed", agent=self.name)

    @property
    def is_closed(self):
        return self.pool.closing != 0

    def work(self):
        with nogil:
            pool_work(&self.pool)

    def progress(self):
        self.check()
        return self.pool.ended.first != NULL

    def run(self, double until):
        cdef int64_t end = nanoseconds(until)
        self.check()
        with nogil:
            lock(&self.pool)
            while (self.pool.ended.first == NULL and not self.pool.woken and not self.pool.closing
                    and now_ns() < end):
                bell_wait(&self.pool.news, &self.pool.mutex, end)
            self.pool.woken = 0
            unlock(&self.pool)
        self.check()

    def wake(self):
        self.check()
        with nogil:
            lock(&self.pool)
            self.pool.woken = 1
            pthread_cond_broadcast(&self.pool.news)
            unlock(&self.pool)

    def take_finished(self):
        cdef list owners = []
        cdef job_t *job
        cdef Job each
        self.check()
        lock(&self.pool)
        while True:
            job = list_pop(&self.pool.ended)
            if job == NULL:
                break
            job.is_listed = 0
            each = <Job> job.object
            owners.append(each.owner)
            each.owner = None
            self.in_flight.discard(each)
        unlock(&self.pool)
        return owners

    def close(self):
        if self.forks != fork_count:
            return False
        with nogil:
            pool_close(&self.pool)
        return True


@cython.final
cdef class Job:
    cdef job_t job
    cdef Pool pool
    cdef object owner
    cdef object arrays
    cdef int64_t polled
    cdef file_t **files

    def __cinit__(
        self, Pool pool, list files, bint writes, bint syncs,
        const int32_t[::1] file, const int64_t[::1] offset, const int64_t[::1] length, const int64_t[::1] first,
        const uint8_t[::1] bounce, const uint64_t[:, ::1] pieces, uint8_t[::1] done,
    ):
        cdef Py_ssize_t index
        self.pool = pool
        self.arrays = (files, file, offset, length, first, bounce, pieces, done)
        self.files = <file_t **> calloc(len(files) + 1, sizeof(file_t *))
        if self.files == NULL:
            raise MemoryError
        for index in range(len(files)):
            self.files[index] = &(<File?> files[index]).file
        self.job.object = <void *> self
        self.job.files = self.files
        self.job.file_count = len(files)
        self.job.writes = writes
        self.job.call_count = length.shape[0]
        self.job.sync_count = len(files) if syncs else 0
        if length.shape[0]:
            self.job.file = &file[0]
            self.job.offset = &offset[0]
            self.job.length = &length[0]
            self.job.first = &first[0]
            self.job.bounce = &bounce[0]
            self.job.pieces = <const iovec *> &pieces[0, 0]
            self.job.done = &done[0]

    def __dealloc__(self):
        free(self.files)

    # The GIL is held while the state and the Python objects that go with it change: whoever holds the lock never waits
    # for the GIL.

    def post(self, owner):
        cdef job_t *job = &self.job
        cdef bint is_running, is_closed
        self.pool.check()
        lock(&self.pool.pool)
        is_running = job.state == RUNNING
        is_closed = self.pool.pool.closing != 0  # a closer holds no GIL
        if not is_running and not is_closed:
            job_start(&self.pool.pool, job)
            self.owner = owner
            self.pool.in_flight.add(self)
        unlock(&self.pool.pool)
        if is_closed:
            self.pool.check()
        if is_running:
            raise TransferStateError("the request is in progress: wait for it before posting it again")
        return _STATUSES[RUNNING + 2]

    cdef int report(self) except? -9:
        """Return the state; what has ended is hereby seen."""
        cdef int state
        if self.pool.forks != fork_count:
            self.pool.check()
        lock(&self.pool.pool)
        state = self.job.state
        if self.job.is_listed:
            list_remove(&self.pool.pool.ended, &self.job)
            self.job.is_listed = 0
            self.owner = None
            self.pool.in_flight.discard(self)
        unlock(&self.pool.pool)
        return state

    cdef void rest(self, int64_t end) noexcept nogil:
        """Sleep until the job is quiet or the end."""
        lock(&self.pool.pool)
        if self.job.state == RUNNING:
            self.job.waiters += 1
            bell_wait(&self.pool.pool.quiet, &self.pool.pool.mutex, end)
            self.job.waiters -= 1
        unlock(&self.pool.pool)

    def poll(self):
        cdef int state = self.report()
        cdef int64_t now
        if state == RUNNING:
            now = now_ns()
            if now - self.polled < _EAGER:
                with nogil:
                    self.rest(now + _NAP)
                state = self.report()
                now = now_ns()
            self.polled = now
        return _STATUSES[state + 2]

    def wait(self, double until):
        cdef int64_t end = nanoseconds(until), now
        cdef int state = self.report()
        while state == RUNNING:
            now = now_ns()
            if now >= end:
                break
            PyErr_CheckSignals()
            with nogil:
                self.rest(min(end, now + _SIGNALS))
            state = self.report()
        return _STATUSES[state + 2]

    def stop(self):
        if self.pool.forks != fork_count:
            self.pool.check()
        lock(&self.pool.pool)
        job_stop(&self.pool.pool, &self.job)
        unlock(&self.pool.pool)

    @property
    def status(self):
        return _STATUSES[self.job.state + 2]

    @property
    def landed(self):
        return self.job.landed

    @property
    def total_ns(self):
        return self.job.total_ns

    @property
    def failure(self):
        if self.job.error == 0:
            return None
        return self.job.error, self.job.error_file, self.job.error_offset, self.job.error_size, self.job.error_sync
