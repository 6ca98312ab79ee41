# What drives one UCX worker: plain C data, no Python object, no policy.
#
# One lock (the gate) per worker guards everything here, UCX's worker included: UCX runs in its serialized
# mode, and its callbacks run while the caller of ucp_worker_progress holds the gate. Nobody asks for the
# GIL while holding the gate, so the gate may be taken with or without the GIL.
#
# A request in flight is owned by the engine. Each of its operations ends in `operation_ended`; the last one
# puts it on the `ready` list, and `settle` takes it a step further: next window, notification, end. So a
# terminal status means that UCX has reported the end of every operation of the request.

cdef enum:
    WINDOW_BYTES = 16 << 20  # in flight per request, so that stopping a large one is prompt (decision 12)
    WINDOW_OPERATIONS = 4096  # likewise for many small rows, and a bound on UCX's request memory
    INLINE_BYTES = 64 << 10  # a posting this small is likely to end within `post` itself
    INLINE_PASSES = 4
    SPIN_NS = 100_000  # a waiting thread polls this long after the last progress before it sleeps
    SLICE_NS = 50_000_000  # the longest sleep between two looks at signals
    POLLED_NS = 50_000  # a poll this recent means that somebody else is driving
    ASIDE_NS = 200_000  # how long `run` steps aside for others that poll
    LONGEST_ASIDE_NS = 1_000_000  # and for one that it still sees waiting: each look can cost that one 30 us
    CLOSE_NS = 2_000_000_000
    IDLE_PASSES = 64  # of progress, after which a worker rests
    REST_PASSES = 1000  # of progress at most before an endpoint is closed by force
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
    uint64_t address  # of the segment: a slot serves others once its own is gone
    uint64_t size
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
    bint is_held  # on its connection's list of those that wait for it to be made
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
    request_t *previous  # of those held, later of those ended
    request_t *next

# A remote key that was unloaded while requests were in flight.
cdef struct retired_t:
    ucp_rkey_h key
    retired_t *next

# One life of an endpoint. After a failure the endpoint gets a new one; this one lasts until it is quiet.
cdef struct connection_t:
    worker_t *worker
    endpoint_t *endpoint  # NULL once detached
    uint64_t identity  # of the peer's UCX worker
    ucp_ep_h ep  # NULL while `is_held`
    bint is_held  # until the peer has done with what earlier connections left
    void *address  # to make it from, while held
    request_t *held_first
    request_t *held_last
    int users  # requests in flight
    bint is_broken
    bint is_closing
    bint is_closed
    char reason[REASON_SIZE]
    ucp_rkey_h *keys  # by remote slot, unpacked on first use
    int32_t keys_size
    retired_t *retired  # destroyed when no request is in flight
    connection_t *previous
    connection_t *next

cdef struct endpoint_t:
    void *self
    uint64_t identity
    connection_t *connection  # NULL before the first use and after a failure
    table_t keys
    char failure[REASON_SIZE]
    bint is_failed  # on the worker's list of failures to report
    endpoint_t *next_failed

cdef struct worker_t:
    gate_t gate
    pthread_cond_t changed  # for waiting threads that sleep while another one sleeps on the descriptors
    pthread_cond_t resume  # for `run` while another thread sleeps on the descriptors
    ucp_context_h context
    ucp_worker_h ucp
    int event_fd
    int wake_fd
    bint is_sleeping  # a thread sleeps on the two descriptors
    bint is_parked  # `run` waits for `resume`
    bint is_woken
    bint is_closed  # nothing new, and nobody sleeps; `ucp` is NULL once it is destroyed
    int waiting  # threads inside `wait`
    int64_t polled_ns
    request_t *ready
    request_t *ended_first
    request_t *ended_last
    connection_t *connections
    int unsettled  # connections that are broken or closing
    left_t left
    bint has_let_go  # a peer has done with a connection that was left, so that others may be made
    endpoint_t *failed
    table_t memory
    payload_t *inbox_first
    payload_t *inbox_last
    size_t inbox_count
    size_t inbox_bytes
    size_t inbox_count_limit
    size_t inbox_bytes_limit
    uint64_t dropped


cdef int32_t table_take(table_t *table, void *handle, uint64_t address, uint64_t size_of_segment) noexcept nogil:
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
    table.slots[slot].address = address
    table.slots[slot].size = size_of_segment
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


cdef inline void *table_cover(table_t *table, int32_t slot, uint64_t address, uint64_t size) noexcept nogil:
    """Return what a slot holds if its segment covers a range; else NULL."""
    cdef slot_t *found
    if not 0 <= slot < table.size:
        return NULL
    found = &table.slots[slot]
    if address < found.address or size > found.size or address - found.address > found.size - size:
        return NULL
    return found.handle
