# What drives one UCX worker: plain C data, no Python object, no policy.
#
# One lock (the gate) per worker guards everything here, UCX's worker included: UCX runs in its serialized
# mode, and its callbacks run while the caller of ucp_worker_progress holds the gate. Nobody asks for the
# GIL while holding the gate, so the gate may be taken with or without the GIL.
#
# A request in flight is owned by the engine. Each of its operations ends in `operation_ended`; the last one
# puts it on the `ready` list, and `settle` takes it a step further: next window, notification, end. So a
# terminal status means that UCX has reported the end of every operation of the request.

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <pthread.h>
    #include <sched.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/eventfd.h>
    #include <time.h>
    #include <unistd.h>

    static inline int64_t now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000000000LL + t.tv_nsec;
    }

    /* A mutex whose holder can see that others want it, so that a loop which takes it again and again
       (progress) lets them in. */
    typedef struct {
        pthread_mutex_t mutex;
        int wanted;
    } gate_t;

    static inline void gate_enter(gate_t *gate) {
        if (pthread_mutex_trylock(&gate->mutex) == 0) return;
        __atomic_add_fetch(&gate->wanted, 1, __ATOMIC_RELAXED);
        pthread_mutex_lock(&gate->mutex);
        __atomic_sub_fetch(&gate->wanted, 1, __ATOMIC_RELAXED);
    }
    static inline int gate_try(gate_t *gate) { return pthread_mutex_trylock(&gate->mutex) == 0; }
    static inline void gate_leave(gate_t *gate) { pthread_mutex_unlock(&gate->mutex); }
    static inline void gate_yield(gate_t *gate) { /* not holding it */
        for (int i = 0; i < 100 && __atomic_load_n(&gate->wanted, __ATOMIC_RELAXED); i++) sched_yield();
    }
    static void bell_open(pthread_cond_t *bell) {
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(bell, &attributes);
        pthread_condattr_destroy(&attributes);
    }
    static void bell_wait(pthread_cond_t *bell, gate_t *gate, int64_t until) {
        struct timespec t = {until / 1000000000LL, until % 1000000000LL};
        pthread_cond_timedwait(bell, &gate->mutex, &t);
    }
    static void descriptors_wait(int first, int second, int64_t timeout_ns) {
        struct pollfd set[2] = {{first, POLLIN, 0}, {second, POLLIN, 0}};
        struct timespec t = {timeout_ns / 1000000000LL, timeout_ns % 1000000000LL};
        ppoll(set, 2, &t, NULL);
    }
    static int wake_open(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }
    static void wake_ring(int descriptor) { (void)!eventfd_write(descriptor, 1); }
    static void wake_drain(int descriptor) { eventfd_t n; (void)!eventfd_read(descriptor, &n); }
    static void descriptor_close(int descriptor) { if (descriptor >= 0) close(descriptor); }
    static void close_on_exec(int descriptor) { fcntl(descriptor, F_SETFD, FD_CLOEXEC); }

    /* How often this process is a fork of a fork; objects remember the number they were made under. */
    static unsigned fork_count;
    static void forked(void) { fork_count++; }
    static void watch_forks(void) { pthread_atfork(NULL, NULL, forked); }
    """
    ctypedef struct gate_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int64_t now_ns() noexcept nogil
    void gate_enter(gate_t *) noexcept nogil
    int gate_try(gate_t *) noexcept nogil
    void gate_leave(gate_t *) noexcept nogil
    void gate_yield(gate_t *) noexcept nogil
    void bell_open(pthread_cond_t *) noexcept nogil
    void bell_wait(pthread_cond_t *, gate_t *, int64_t until) noexcept nogil
    int pthread_cond_broadcast(pthread_cond_t *) noexcept nogil
    void descriptors_wait(int, int, int64_t timeout_ns) noexcept nogil
    int wake_open() noexcept nogil
    void wake_ring(int) noexcept nogil
    void wake_drain(int) noexcept nogil
    void descriptor_close(int) noexcept nogil
    void close_on_exec(int) noexcept nogil
    size_t strnlen(const char *, size_t) noexcept nogil
    unsigned fork_count
    void watch_forks() noexcept nogil


cdef enum:
    WINDOW_BYTES = 16 << 20  # in flight per request, so that stopping a large one is prompt (decision 12)
    WINDOW_OPERATIONS = 4096  # likewise for many small rows, and a bound on UCX's request memory
    INLINE_BYTES = 64 << 10  # a posting this small is likely to end within `post` itself
    INLINE_PASSES = 4
    SPIN_NS = 100_000  # a waiting thread polls this long after the last progress before it sleeps
    SLICE_NS = 50_000_000  # the longest sleep between two looks at signals
    POLLED_NS = 50_000  # a poll this recent means that somebody else is driving
    ASIDE_NS = 200_000  # how long `run` steps aside for others that poll
    CLOSE_NS = 2_000_000_000
    IDLE_PASSES = 64  # of progress, after which a worker rests
    REASON_SIZE = 160
    PADDING = 256  # zeros after a remote key: UCX reads it without being told its size
    ADDRESS_ROOM = 64 << 10  # likewise for a worker address
    KEY_LIMIT = 4096
    KEY_TRAILER = 64

cdef enum Phase:
    MOVING
    NOTIFYING

cdef enum:  # trunkline.backend.contract.Status
    FAILED = -2
    STOPPED = -1
    IDLE = 0
    DONE = 1
    IN_PROGRESS = 2


# A growing table with stable small numbers.
cdef struct slot_t:
    void *handle  # local: ucp_mem_h; remote: the key's bytes, padded
    int32_t next_free

cdef struct table_t:
    slot_t *slots
    int32_t size
    int32_t free  # first free slot, or -1

cdef struct payload_t:
    payload_t *next
    size_t size
    unsigned id

cdef struct request_t:
    void *self  # the Python object, which is kept alive while in progress
    worker_t *worker
    connection_t *connection
    int status
    int phase
    bint write
    bint stopping
    bint is_ready
    bint is_ended
    int outstanding  # operations whose end UCX has not reported yet
    int error  # ucs_status_t of the first operation that failed
    int64_t rows
    int64_t row  # the next to post, from `row_offset` on
    uint64_t row_offset
    int64_t completed
    const uint64_t *local
    const uint64_t *remote
    const uint64_t *length
    const int32_t *local_slot
    const int32_t *remote_slot
    unsigned notification_id
    const char *notification
    size_t notification_size
    bint notifies
    int64_t started_ns
    int64_t post_ns
    int64_t total_ns
    char reason[REASON_SIZE]
    request_t *next_ready
    request_t *previous
    request_t *next

# One life of an endpoint. After a failure the endpoint gets a new one; this one lasts until it is quiet.
cdef struct connection_t:
    worker_t *worker
    endpoint_t *endpoint  # NULL once detached
    ucp_ep_h ep
    int users  # requests in flight
    bint is_broken
    bint is_closing
    bint is_closed
    char reason[REASON_SIZE]
    ucp_rkey_h *keys  # by remote slot, unpacked on first use
    int32_t keys_size
    connection_t *previous
    connection_t *next

cdef struct endpoint_t:
    void *self
    connection_t *connection  # NULL before the first use and after a failure
    table_t keys
    char failure[REASON_SIZE]
    bint is_failed  # on the worker's list of failures to report
    endpoint_t *next_failed

cdef struct worker_t:
    gate_t gate
    pthread_cond_t changed  # for waiting threads that sleep while another one sleeps on the descriptors
    pthread_cond_t resume  # for `run` while it steps aside
    ucp_context_h context
    ucp_worker_h ucp
    int event_fd
    int wake_fd
    bint is_sleeping  # a thread sleeps on the two descriptors
    bint is_parked  # `run` has stepped aside until it is called
    bint is_woken
    bint is_closed  # nothing new, and nobody sleeps; `ucp` is NULL once it is destroyed
    int waiting  # threads inside `wait`
    int64_t polled_ns
    request_t *ready
    request_t *ended_first
    request_t *ended_last
    connection_t *connections
    int unsettled  # connections that are broken or closing
    endpoint_t *failed
    table_t memory
    payload_t *inbox_first
    payload_t *inbox_last
    size_t inbox_count
    size_t inbox_bytes
    size_t inbox_count_limit
    size_t inbox_bytes_limit
    uint64_t dropped


# --- slots ---

cdef int32_t table_take(table_t *table, void *handle) noexcept nogil:
    cdef int32_t slot, size
    cdef slot_t *grown
    if table.free < 0:
        size = max(64, table.size * 2)
        grown = <slot_t *> realloc(table.slots, size * sizeof(slot_t))
        if grown == NULL:
            return -1
        table.slots = grown
        for slot in range(size - 1, table.size - 1, -1):
            grown[slot].handle = NULL
            grown[slot].next_free = table.free
            table.free = slot
        table.size = size
    slot = table.free
    table.free = table.slots[slot].next_free
    table.slots[slot].handle = handle
    return slot


cdef void *table_give(table_t *table, int32_t slot) noexcept nogil:
    """Empty a slot and return what it held; NULL if there is no such slot."""
    cdef void *handle = table_look(table, slot)
    if handle != NULL:
        table.slots[slot].handle = NULL
        table.slots[slot].next_free = table.free
        table.free = slot
    return handle


cdef inline void *table_look(table_t *table, int32_t slot) noexcept nogil:
    return table.slots[slot].handle if 0 <= slot < table.size else NULL


# --- callbacks: called by UCX, with the gate held ---

cdef void operation_ended(void *operation, ucs_status_t status, void *argument) noexcept nogil:
    cdef request_t *request = <request_t *> argument
    if status != UCS_OK and request.error == 0:
        request.error = <int> status
    request.outstanding -= 1
    if request.outstanding == 0:
        make_ready(request)
    ucp_request_free(operation)


cdef void connection_failed(void *argument, ucp_ep_h ep, ucs_status_t status) noexcept nogil:
    connection_break(<connection_t *> argument, ucs_status_string(status), True)


cdef void connection_closed(void *operation, ucs_status_t status, void *argument) noexcept nogil:
    (<connection_t *> argument).is_closed = True
    ucp_request_free(operation)


cdef ucs_status_t message_arrived(
        void *argument, const void *header, size_t header_length, void *data, size_t length,
        const ucp_am_recv_param_t *param, unsigned id) noexcept nogil:
    cdef worker_t *worker = <worker_t *> argument
    cdef payload_t *payload = NULL
    if (not param.recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV and header_length == 0
            and worker.inbox_count < worker.inbox_count_limit
            and length <= worker.inbox_bytes_limit - worker.inbox_bytes):
        payload = <payload_t *> malloc(sizeof(payload_t) + length)
    if payload == NULL:
        worker.dropped += 1
    else:
        payload.next = NULL
        payload.size = length
        payload.id = id
        memcpy(payload + 1, data, length)
        if worker.inbox_last == NULL:
            worker.inbox_first = payload
        else:
            worker.inbox_last.next = payload
        worker.inbox_last = payload
        worker.inbox_count += 1
        worker.inbox_bytes += length
    tell(worker)
    return UCS_OK


cdef ucs_status_t notification_arrived(
        void *argument, const void *header, size_t header_length, void *data, size_t length,
        const ucp_am_recv_param_t *param) noexcept nogil:
    return message_arrived(argument, header, header_length, data, length, param, 0)


cdef ucs_status_t failure_arrived(
        void *argument, const void *header, size_t header_length, void *data, size_t length,
        const ucp_am_recv_param_t *param) noexcept nogil:
    return message_arrived(argument, header, header_length, data, length, param, 1)


# --- connections ---

cdef void tell(worker_t *worker) noexcept nogil:
    """There is something to take: end the sleep of whoever sleeps, without waking those who poll anyway."""
    if worker.is_sleeping:
        wake_ring(worker.wake_fd)
    if worker.is_parked:
        pthread_cond_broadcast(&worker.resume)


cdef void copy_reason(char *target, const char *source) noexcept nogil:
    cdef size_t size = strnlen(source, REASON_SIZE - 1)
    memcpy(target, source, size)
    target[size] = 0


cdef connection_t *connection_open(worker_t *worker, endpoint_t *endpoint, const void *address, int *status) noexcept nogil:
    """Make an endpoint's connection; `address` is followed by zeros, since UCX is not told its size."""
    cdef ucp_ep_params_t params
    cdef connection_t *connection = <connection_t *> calloc(1, sizeof(connection_t))
    if connection == NULL:
        status[0] = UCS_ERR_NO_MEMORY
        return NULL
    params.field_mask = (
        UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLER | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE)
    params.address = <const ucp_address_t *> address
    params.err_mode = UCP_ERR_HANDLING_MODE_PEER
    params.err_handler.cb = connection_failed
    params.err_handler.arg = connection
    connection.worker = worker
    status[0] = <int> ucp_ep_create(worker.ucp, &params, &connection.ep)
    if status[0] != UCS_OK:
        free(connection)
        return NULL
    connection.endpoint = endpoint
    endpoint.connection = connection
    endpoint.failure[0] = 0
    connection.next = worker.connections
    if connection.next != NULL:
        connection.next.previous = connection
    worker.connections = connection
    return connection


cdef void connection_detach(connection_t *connection) noexcept nogil:
    if connection.endpoint != NULL:
        connection.endpoint.connection = NULL
        connection.endpoint = NULL
        connection.worker.unsettled += 1


cdef void connection_break(connection_t *connection, const char *reason, bint report) noexcept nogil:
    """Mark as failed; `settle` closes it by force, which ends its operations. The first reason counts."""
    cdef endpoint_t *endpoint = connection.endpoint
    cdef worker_t *worker = connection.worker
    if connection.is_broken or endpoint == NULL:
        return
    connection.is_broken = True
    copy_reason(connection.reason, reason)
    copy_reason(endpoint.failure, reason)
    connection_detach(connection)
    if report and not endpoint.is_failed:
        endpoint.is_failed = True
        endpoint.next_failed = worker.failed
        worker.failed = endpoint
        tell(worker)


cdef void connection_close(connection_t *connection, bint force) noexcept nogil:
    cdef ucp_request_param_t param
    cdef ucs_status_ptr_t operation
    param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS
    param.flags = UCP_EP_CLOSE_FLAG_FORCE if force else 0
    param.cb.send = connection_closed
    param.user_data = connection
    connection.is_closing = True
    operation = ucp_ep_close_nbx(connection.ep, &param)
    if operation == NULL or UCS_PTR_IS_ERR(operation):
        connection.is_closed = True


cdef void connection_forget_keys(connection_t *connection) noexcept nogil:
    cdef int32_t slot
    for slot in range(connection.keys_size):
        if connection.keys[slot] != NULL:
            ucp_rkey_destroy(connection.keys[slot])
    connection.keys_size = 0


cdef void connection_free(connection_t *connection) noexcept nogil:
    connection_forget_keys(connection)
    if connection.previous != NULL:
        connection.previous.next = connection.next
    else:
        connection.worker.connections = connection.next
    if connection.next != NULL:
        connection.next.previous = connection.previous
    connection.worker.unsettled -= 1
    free(connection.keys)
    free(connection)


cdef ucp_rkey_h connection_key(connection_t *connection, int32_t slot, int *status) noexcept nogil:
    """Return a remote key, unpacked for this connection."""
    cdef ucp_rkey_h *grown
    cdef int32_t size
    cdef void *packed
    if slot < connection.keys_size and connection.keys[slot] != NULL:
        return connection.keys[slot]
    packed = table_look(&connection.endpoint.keys, slot)
    if packed == NULL:
        status[0] = UCS_ERR_INVALID_PARAM
        return NULL
    if slot >= connection.keys_size:
        size = connection.endpoint.keys.size
        grown = <ucp_rkey_h *> realloc(connection.keys, size * sizeof(ucp_rkey_h))
        if grown == NULL:
            status[0] = UCS_ERR_NO_MEMORY
            return NULL
        memset(grown + connection.keys_size, 0, (size - connection.keys_size) * sizeof(ucp_rkey_h))
        connection.keys = grown
        connection.keys_size = size
    status[0] = <int> ucp_ep_rkey_unpack(connection.ep, packed, &connection.keys[slot])
    if status[0] != UCS_OK:
        connection.keys[slot] = NULL
    return connection.keys[slot]


# --- requests ---

cdef inline void make_ready(request_t *request) noexcept nogil:
    if not request.is_ready:
        request.is_ready = True
        request.next_ready = request.worker.ready
        request.worker.ready = request


cdef void finish(request_t *request, int status) noexcept nogil:
    """End a request and put it on the list of those to report."""
    cdef worker_t *worker = request.worker
    if request.connection != NULL:
        if status == FAILED and request.reason[0] == 0:
            copy_reason(request.reason, request.connection.reason)
        request.connection.users -= 1
        request.connection = NULL
    if status == DONE:
        request.completed = request.rows
    request.status = status
    request.total_ns = now_ns() - request.started_ns
    request.is_ended = True
    request.next = NULL
    request.previous = worker.ended_last
    if worker.ended_last == NULL:
        worker.ended_first = request
    else:
        worker.ended_last.next = request
    worker.ended_last = request
    tell(worker)


cdef bint report(request_t *request) noexcept nogil:
    """Take an ended request off the list; return whether it was on it."""
    cdef worker_t *worker = request.worker
    if not request.is_ended:
        return False
    request.is_ended = False
    if request.previous == NULL:
        worker.ended_first = request.next
    else:
        request.previous.next = request.next
    if request.next == NULL:
        worker.ended_last = request.previous
    else:
        request.next.previous = request.previous
    return True


cdef inline void count(request_t *request, ucs_status_ptr_t operation) noexcept nogil:
    if UCS_PTR_IS_ERR(operation):
        if request.error == 0:
            request.error = <int> UCS_PTR_RAW_STATUS(operation)
    elif operation != NULL:
        request.outstanding += 1


cdef void post_window(request_t *request) noexcept nogil:
    """Post the next rows and the flush that proves their arrival."""
    cdef connection_t *connection = request.connection
    cdef worker_t *worker = request.worker
    cdef ucp_request_param_t param
    cdef int64_t budget = WINDOW_BYTES
    cdef int operations = 0
    cdef int64_t row
    cdef uint64_t size
    cdef ucp_rkey_h key
    param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMH
    if request.rows > 1:
        param.op_attr_mask |= UCP_OP_ATTR_FLAG_MULTI_SEND
    param.cb.send = operation_ended
    param.user_data = request
    request.outstanding += 1  # so that it is not ready before all is posted
    while request.row < request.rows and budget > 0 and operations < WINDOW_OPERATIONS and request.error == 0:
        row = request.row
        size = request.length[row] - request.row_offset
        if size > <uint64_t> budget:
            size = budget
        param.memh = table_look(&worker.memory, request.local_slot[row])
        key = connection_key(connection, request.remote_slot[row], &request.error)
        if key == NULL or param.memh == NULL:
            copy_reason(request.reason, b"the local segment was deregistered" if key != NULL
                        else b"the remote segment was unloaded or its key can't be used on this path")
            request.error = UCS_ERR_INVALID_PARAM
            break
        if request.write:
            count(request, ucp_put_nbx(connection.ep, <void *> (request.local[row] + request.row_offset), size,
                                       request.remote[row] + request.row_offset, key, &param))
        else:
            count(request, ucp_get_nbx(connection.ep, <void *> (request.local[row] + request.row_offset), size,
                                       request.remote[row] + request.row_offset, key, &param))
        operations += 1
        budget -= size
        request.row_offset += size
        if request.row_offset == request.length[row]:
            request.row += 1
            request.row_offset = 0
    if not connection.is_broken:
        param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA
        count(request, ucp_ep_flush_nbx(connection.ep, &param))
    request.outstanding -= 1


cdef void post_notification(request_t *request) noexcept nogil:
    cdef ucp_request_param_t param
    request.phase = NOTIFYING
    param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS
    param.flags = UCP_AM_SEND_FLAG_EAGER
    param.cb.send = operation_ended
    param.user_data = request
    count(request, ucp_am_send_nbx(request.connection.ep, request.notification_id, NULL, 0,
                                   request.notification, request.notification_size, &param))


cdef void advance(request_t *request) noexcept nogil:
    """Take a request as far as it goes without waiting."""
    while request.status == IN_PROGRESS and request.outstanding == 0:
        if request.error == 0 and not request.connection.is_broken:
            if request.phase == NOTIFYING:
                finish(request, DONE)
                return
            request.completed = request.row
            if request.row < request.rows:
                if request.stopping:
                    finish(request, STOPPED)
                else:
                    post_window(request)
            elif request.notifies:
                post_notification(request)
            else:
                finish(request, DONE)
        else:
            if request.reason[0] == 0:
                connection_break(request.connection, ucs_status_string(<ucs_status_t> request.error), True)
            finish(request, FAILED)


cdef unsigned settle(worker_t *worker) noexcept nogil:
    """Do what the callbacks left to do: next steps of requests, closing of broken connections."""
    cdef request_t *request
    cdef connection_t *connection
    cdef connection_t *following
    cdef unsigned steps = 0
    while worker.ready != NULL:
        request = worker.ready
        worker.ready = request.next_ready
        request.is_ready = False
        advance(request)
        steps += 1
    if worker.unsettled:
        connection = worker.connections
        while connection != NULL:
            following = connection.next
            if connection.is_broken and not connection.is_closing:
                connection_close(connection, True)
            if connection.is_closed and connection.users == 0:
                connection_free(connection)
                steps += 1
            connection = following
    return steps


cdef unsigned progress(worker_t *worker) noexcept nogil:
    """Drive the worker once; return 0 if nothing happened. The gate is held."""
    cdef unsigned steps
    if worker.ucp == NULL:
        return 0
    steps = ucp_worker_progress(worker.ucp)
    if worker.ready != NULL or worker.unsettled:
        steps += settle(worker)
    return steps


# --- sleeping ---

cdef void sleep_until(worker_t *worker, int64_t until) noexcept nogil:
    """Sleep until something may have happened. One thread sleeps on the descriptors, others on its return."""
    cdef int64_t now
    if worker.is_sleeping:
        bell_wait(&worker.changed, &worker.gate, until)
        return
    if worker.is_closed or ucp_worker_arm(worker.ucp) != UCS_OK:
        return
    now = now_ns()
    if until <= now:
        return
    worker.is_sleeping = True
    gate_leave(&worker.gate)
    descriptors_wait(worker.event_fd, worker.wake_fd, until - now)
    gate_enter(&worker.gate)
    worker.is_sleeping = False
    wake_drain(worker.wake_fd)
    pthread_cond_broadcast(&worker.changed)
    if worker.is_parked:
        pthread_cond_broadcast(&worker.resume)


cdef void wait_slice(request_t *request, int64_t until) noexcept nogil:
    """Drive until the request has ended or `until`. The gate is not held."""
    cdef worker_t *worker = request.worker
    cdef int64_t now = 0
    cdef int64_t progressed = now_ns()
    cdef unsigned steps
    gate_enter(&worker.gate)
    worker.waiting += 1
    while request.status == IN_PROGRESS:
        steps = progress(worker)
        if request.status != IN_PROGRESS:
            break
        now = now_ns()
        if now >= until:
            break
        if steps:
            progressed = now
        elif now - progressed > SPIN_NS:
            sleep_until(worker, until)
            progressed = now_ns()
            continue
        gate_leave(&worker.gate)
        gate_yield(&worker.gate)
        gate_enter(&worker.gate)
    worker.waiting -= 1
    worker.polled_ns = now_ns()
    if worker.is_parked:
        pthread_cond_broadcast(&worker.resume)
    gate_leave(&worker.gate)


cdef bint has_news(worker_t *worker) noexcept nogil:
    return (worker.is_woken or worker.is_closed or worker.ended_first != NULL or worker.failed != NULL
            or worker.inbox_first != NULL)


cdef bint run_slice(worker_t *worker, int64_t until) noexcept nogil:
    """Drive in the background until there is news (True) or `until` (False). The gate is not held."""
    cdef int64_t now
    cdef bint news
    gate_enter(&worker.gate)
    while True:
        news = has_news(worker)
        now = now_ns()
        if news or now >= until:
            break
        if worker.waiting and worker.is_sleeping:
            worker.is_parked = True
            bell_wait(&worker.resume, &worker.gate, until)
            worker.is_parked = False
        elif worker.waiting or now - worker.polled_ns < POLLED_NS:
            bell_wait(&worker.resume, &worker.gate, min(until, now + ASIDE_NS))
        elif not progress(worker):
            sleep_until(worker, until)
        else:
            gate_leave(&worker.gate)
            gate_yield(&worker.gate)
            gate_enter(&worker.gate)
    worker.is_woken = False
    gate_leave(&worker.gate)
    return news
