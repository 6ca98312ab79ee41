# Taking chunks of requests, copying them, booking what became of them.

cdef bint take(request_t *request, chunk_t *chunk) noexcept nogil:
    """Take the next rows into a lane; return whether there were any to take. The gate is held."""
    cdef uint64_t goal, room, size
    cdef uint64_t taken = 0
    cdef int lane
    if request.status != IN_PROGRESS or not request.is_open:
        return False
    for lane in range(LANES):
        if request.lanes[lane] < 0:
            break
    else:
        return False
    # Shared out so that all threads end at about the same time.
    goal = min(<uint64_t> LARGEST_CHUNK, max(<uint64_t> LEAST_CHUNK, request.left / 2))
    chunk.lane = lane
    chunk.pid = request.link.pid
    chunk.row = request.row
    chunk.offset = request.offset
    chunk.rows = 0
    chunk.bytes = 0
    chunk.tail = 0
    chunk.error = 0
    chunk.error_row = -1
    while request.row < request.rows and taken < goal and chunk.rows < MOST_VECTORS:
        size = request.length[request.row] - request.offset
        room = max(<uint64_t> 4096, goal - taken)
        if size > room + room / 4:  # what would be left is worth a call of its own
            size = room
            request.offset += size
        else:
            request.row += 1
            request.offset = 0
        chunk.rows += 1
        chunk.tail = size
        chunk.bytes += size
        taken += weigh(size)
    request.left -= min(request.left, taken)
    if request.row == request.rows:
        open_remove(request)
    request.lanes[lane] = chunk.row
    request.active += 1
    request.link.copying += 1
    request.engine.copying += 1
    return True


cdef void copy(request_t *request, chunk_t *chunk) noexcept nogil:
    """Copy a chunk, if its process still lives. The gate is not held: the lane keeps everything in place."""
    cdef iovec here[MOST_VECTORS]
    cdef iovec there[MOST_VECTORS]
    cdef int64_t at, row
    cdef int64_t first = 0
    cdef uint64_t offset, size
    cdef uint64_t left = chunk.bytes
    cdef ssize_t moved
    if has_event(request.link.socket, request.link.pidfd, 0):
        chunk.error = HUNG_UP
        chunk.error_row = chunk.row
        return
    for at in range(chunk.rows):
        row = chunk.row + at
        offset = chunk.offset if at == 0 else 0
        size = chunk.tail if at == chunk.rows - 1 else request.length[row] - offset
        here[at].iov_base = <void *> (request.local[row] + offset)
        there[at].iov_base = <void *> (request.remote[row] + offset)
        here[at].iov_len = there[at].iov_len = size
    while left:
        if request.write:
            moved = process_vm_writev(chunk.pid, here + first, chunk.rows - first, there + first, chunk.rows - first, 0)
        else:
            moved = process_vm_readv(chunk.pid, here + first, chunk.rows - first, there + first, chunk.rows - first, 0)
        if moved < 0 or moved == 0:
            chunk.error = errno if moved < 0 else EFAULT
            chunk.error_row = chunk.row + first
            return
        left -= moved
        if not left:
            return
        # It stopped short: at memory that is not there, which the next call says, or at its own limit.
        while <uint64_t> moved >= here[first].iov_len:
            moved -= here[first].iov_len
            first += 1
        here[first].iov_base = <char *> here[first].iov_base + moved
        there[first].iov_base = <char *> there[first].iov_base + moved
        here[first].iov_len -= moved
        there[first].iov_len -= moved


cdef void finish(request_t *request, int status) noexcept nogil:
    """End a request on which nothing is under way. The gate is held."""
    open_remove(request)
    request.total_ns = now_ns() - request.started_ns
    ended_push(request)
    request.status = status
    if request.watchers:
        pthread_cond_broadcast(&request.engine.changed)


cdef void finish_if_quiet(request_t *request) noexcept nogil:
    if request.status != IN_PROGRESS or request.active:
        return
    if request.reason[0]:
        finish(request, FAILED)
    elif request.row == request.rows:
        finish(request, DONE)
    elif request.stopping:
        finish(request, STOPPED)


cdef void fail(request_t *request, const char *reason) noexcept nogil:
    """Take no more of a request; it ends once what is under way has ended. The gate is held."""
    if request.status != IN_PROGRESS:
        return
    open_remove(request)
    if request.reason[0] == 0:
        copy_reason(request.reason, reason)
    finish_if_quiet(request)


cdef void fail_all(engine_t *engine, link_t *link, const char *reason) noexcept nogil:
    """Fail what is open to a link, or to all (NULL). The gate is held."""
    cdef request_t *request = engine.open_first
    cdef request_t *following
    while request != NULL:
        following = request.next
        if link == NULL or request.link == link:
            fail(request, reason)
        request = following


cdef void book(request_t *request, chunk_t *chunk) noexcept nogil:
    """Give the lane back and see what became of the request. The gate is held."""
    cdef char reason[REASON_SIZE]
    cdef link_t *link = request.link
    request.lanes[chunk.lane] = -1
    request.active -= 1
    link.copying -= 1
    request.engine.copying -= 1
    if chunk.error == HUNG_UP or chunk.error == ESRCH:
        say_ended(reason, REASON_SIZE, chunk.pid)
        link_break(link, reason)
        fail(request, reason)
    elif chunk.error:
        say_failed(reason, REASON_SIZE, request.write, chunk.error_row, request.length[chunk.error_row],
                   request.remote[chunk.error_row], chunk.pid, chunk.error)
        fail(request, reason)
        if chunk.error == EPERM or chunk.error == ENOSYS:
            link_retire(link, reason)
    if chunk.error:
        request.error_row = min(request.error_row, chunk.error_row)
    finish_if_quiet(request)
    if link.copying == 0 or request.engine.is_closed:
        pthread_cond_broadcast(&request.engine.changed)


cdef int64_t completed(request_t *request) noexcept nogil:
    """Return how many leading rows have arrived. The gate is held."""
    cdef int64_t rows = min(request.row, request.error_row)
    cdef int lane
    for lane in range(LANES):
        if request.lanes[lane] >= 0:
            rows = min(rows, request.lanes[lane])
    return rows


cdef bint copy_one(engine_t *engine, request_t *request) noexcept nogil:
    """Take, copy and book one chunk; return whether there was one. The gate is held, and let go meanwhile."""
    cdef chunk_t chunk
    if not take(request, &chunk):
        return False
    pthread_mutex_unlock(&engine.gate)
    copy(request, &chunk)
    pthread_mutex_lock(&engine.gate)
    book(request, &chunk)
    return True


cdef bint copy_any(engine_t *engine) noexcept nogil:
    """Likewise, of the first request that has one."""
    cdef request_t *request = engine.open_first
    while request != NULL:
        if copy_one(engine, request):
            return True
        request = request.next
    return False
