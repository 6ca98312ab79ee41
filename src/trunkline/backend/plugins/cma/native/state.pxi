# What one backend consists of: plain C data, no Python object.
#
# One lock (the gate) per engine guards everything here. It is held for bookkeeping only: every copy, and every other
# call that may take long, runs without it. Nobody asks for the GIL while holding it.
#
# A posted request stands among the open ones until its last rows are taken. Whoever drives (`run`, `post`, `wait`,
# `poll`, `progress`) takes a chunk of it into a lane, copies, and books what became of it; the request ends when
# nothing is left to take and no lane is in use. So a terminal status means that no copy of it is under way.

cdef enum:
    LANES = 4  # threads that copy for one request at the same time
    MOST_VECTORS = 1024  # the kernel's UIO_MAXIOV
    ROW_WEIGHT = 4096  # what a row costs beside its bytes: finding its page takes as long as copying some KiB
    LEAST_CHUNK = 256 << 10  # weight of what is copied by one call: a look for a hang-up and a call take some 2 us
    LARGEST_CHUNK = 1 << 20
    INLINE_WEIGHT = 1 << 20  # what `post` copies itself at most
    SHARED_WEIGHT = 384 << 10  # from here on it pays to wake a second thread
    SPIN_NS = 60_000  # `run` looks for more this long after a chunk, and `post` and `wait` for others' chunks to end
    SLICE_NS = 50_000_000  # the longest sleep between two looks at signals
    POLLED_NS = 50_000  # a poll this recent means that its thread will see the end itself
    ASIDE_NS = 1_000_000  # how long `run` leaves an end to those who poll or wait
    RETRY_NS = 1_000_000_000  # until more connections are accepted after descriptors ran out
    REASON_SIZE = 240
    NONCE_SIZE = 16
    PAGE_SIZE = 4096
    HELLO_SIZE = 512

cdef enum:  # trunkline.backend.contract.Status
    FAILED = -2
    STOPPED = -1
    IDLE = 0
    DONE = 1
    IN_PROGRESS = 2

cdef enum Life:
    UNREADY  # not connected, or not proved
    READY
    BROKEN

cdef struct link_t:
    engine_t *engine
    void *self
    int life
    int socket  # kept open as long as it lives: its hang-up is the process's end
    int pidfd  # likewise, whoever inherited the other end of the socket; -1 before Linux 5.3
    int pid
    int copying  # lanes in use to it
    bint is_failed  # on the engine's list of failures to report
    char reason[REASON_SIZE]
    link_t *next_failed
    link_t *previous
    link_t *next

cdef struct chunk_t:
    int lane
    int pid
    int64_t row  # the first, from `offset` on
    uint64_t offset
    int64_t rows
    uint64_t tail  # bytes of the last row
    uint64_t bytes
    int error  # errno, or HUNG_UP
    int64_t error_row

cdef enum:
    HUNG_UP = -1

cdef struct request_t:
    void *self  # the Python object, which is kept alive while in progress
    engine_t *engine
    link_t *link
    int status
    bint write
    bint stopping
    int is_open
    bint is_ended  # on the list of those to report
    int watchers  # threads inside `post` or `wait`, who will report its end
    int active  # lanes in use
    int64_t lanes[LANES]  # the first row of each copy under way, else -1
    int64_t rows
    int64_t row  # the next to take, from `offset` on
    uint64_t offset
    uint64_t weight
    uint64_t left  # weight that is not taken yet
    int64_t error_row  # the first that is known to have failed, or `rows`
    const uint64_t *local
    const uint64_t *remote
    const uint64_t *length
    int64_t started_ns
    int64_t post_ns
    int64_t total_ns
    char reason[REASON_SIZE]
    request_t *previous
    request_t *next

cdef struct engine_t:
    pthread_mutex_t gate
    pthread_cond_t changed
    int epoll
    int wake_fd
    int listener
    bint is_listening  # the listener is in the epoll set
    int64_t listen_ns  # when it comes back there
    bint is_sleeping
    int is_woken
    int is_rung  # by a `post` that wants help
    int is_closed
    int copying
    int64_t polled_ns
    request_t *open_first
    request_t *open_last
    request_t *ended_first
    request_t *ended_last
    link_t *links
    link_t *failed
    int *accepted
    int accepted_count
    int accepted_limit
    void *page
    char hello[HELLO_SIZE]
    size_t hello_size


cdef inline uint64_t weigh(uint64_t size) noexcept nogil:
    return size + ROW_WEIGHT


cdef void copy_reason(char *to, const char *reason) noexcept nogil:
    cdef size_t size = strnlen(reason, REASON_SIZE - 1)
    memcpy(to, reason, size)
    to[size] = 0


cdef void open_push(request_t *request) noexcept nogil:
    cdef engine_t *engine = request.engine
    request.next = NULL
    request.previous = engine.open_last
    if engine.open_last != NULL:
        engine.open_last.next = request
    else:
        engine.open_first = request
    engine.open_last = request
    request.is_open = True


cdef void open_remove(request_t *request) noexcept nogil:
    cdef engine_t *engine = request.engine
    if not request.is_open:
        return
    request.is_open = False
    if request.previous != NULL:
        request.previous.next = request.next
    else:
        engine.open_first = request.next
    if request.next != NULL:
        request.next.previous = request.previous
    else:
        engine.open_last = request.previous


cdef void ended_push(request_t *request) noexcept nogil:
    cdef engine_t *engine = request.engine
    request.next = NULL
    request.previous = engine.ended_last
    if engine.ended_last != NULL:
        engine.ended_last.next = request
    else:
        engine.ended_first = request
    engine.ended_last = request
    request.is_ended = True


cdef bint report(request_t *request) noexcept nogil:
    """Take a request off the list of those to report; return whether it was there."""
    cdef engine_t *engine = request.engine
    if not request.is_ended:
        return False
    request.is_ended = False
    if request.previous != NULL:
        request.previous.next = request.next
    else:
        engine.ended_first = request.next
    if request.next != NULL:
        request.next.previous = request.previous
    else:
        engine.ended_last = request.previous
    return True
