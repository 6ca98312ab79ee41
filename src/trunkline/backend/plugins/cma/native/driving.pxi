# Who drives when: `run` in the background, `wait` for one request.

cdef bint has_news(engine_t *engine) noexcept nogil:
    """Whether there is something to take that nobody else is about to take."""
    cdef request_t *request = engine.ended_first
    if engine.is_woken or engine.is_closed or engine.failed != NULL:
        return True
    if request != NULL and now_ns() - engine.polled_ns < POLLED_NS:
        return False
    while request != NULL:
        if request.watchers == 0:
            return True
        request = request.next
    return False


cdef void look_around(engine_t *engine, int64_t timeout) noexcept nogil:
    """Wait for events and handle them. The gate is held, and let go meanwhile if there is a timeout."""
    cdef int ready[16]
    cdef int count
    if timeout > 0:
        engine.is_sleeping = True
        pthread_mutex_unlock(&engine.gate)
        count = events_take(engine.epoll, ready, 16, timeout)
        pthread_mutex_lock(&engine.gate)
        engine.is_sleeping = False
        if engine.is_closed:
            pthread_cond_broadcast(&engine.changed)
            return
    else:
        count = events_take(engine.epoll, ready, 16, 0)
    handle_events(engine, ready, count)
    listen_again(engine)


cdef bint run_slice(engine_t *engine, int64_t until) noexcept nogil:
    """Drive in the background until there is news (True) or `until` (False). The gate is not held."""
    cdef int64_t now, timeout
    cdef int64_t worked = 0
    cdef bint news
    pthread_mutex_lock(&engine.gate)
    while True:
        news = has_news(engine)
        now = now_ns()
        if news or now >= until:
            break
        if copy_any(engine):
            worked = now_ns()
            continue
        if now - worked < SPIN_NS:
            pthread_mutex_unlock(&engine.gate)
            while (not is_set(<void *const *> &engine.open_first) and not read_int(&engine.is_woken)
                   and not read_int(&engine.is_closed) and now_ns() - worked < SPIN_NS):
                relax()
            pthread_mutex_lock(&engine.gate)
            continue
        timeout = until - now
        if engine.ended_first != NULL:
            timeout = min(timeout, ASIDE_NS)
        if not engine.is_listening:
            timeout = min(timeout, max(engine.listen_ns - now, 1))
        look_around(engine, timeout)
        if engine.is_rung:  # there is, or was, something to copy: more may follow
            engine.is_rung = 0
            worked = now_ns()
    if news:
        engine.is_woken = 0
    pthread_mutex_unlock(&engine.gate)
    return news


cdef void spin(request_t *request, int64_t until) noexcept nogil:
    """Wait for the copies of others to end. The gate is not held."""
    while read_int(&request.status) == IN_PROGRESS and not is_takable(request) and now_ns() < until:
        relax()


cdef inline bint is_takable(request_t *request) noexcept nogil:
    return read_int(&request.is_open) and read_int(&request.active) < LANES


cdef void wait_slice(request_t *request, int64_t until) noexcept nogil:
    """Copy of a request what there is to copy, and wait for its end or `until`. The gate is not held."""
    cdef engine_t *engine = request.engine
    cdef int64_t spun = 0
    pthread_mutex_lock(&engine.gate)
    request.watchers += 1
    while request.status == IN_PROGRESS and now_ns() < until:
        if copy_one(engine, request):
            spun = 0
        elif not spun:
            spun = min(until, now_ns() + SPIN_NS)
            pthread_mutex_unlock(&engine.gate)
            spin(request, spun)
            pthread_mutex_lock(&engine.gate)
        else:
            bell_wait(&engine.changed, &engine.gate, until)
    request.watchers -= 1
    engine.polled_ns = now_ns()
    pthread_mutex_unlock(&engine.gate)


cdef void post_inline(request_t *request) noexcept nogil:
    """Copy what `post` copies itself. The gate is held, and let go meanwhile."""
    cdef engine_t *engine = request.engine
    cdef uint64_t start = request.left
    if engine.is_sleeping and request.weight >= SHARED_WEIGHT:
        engine.is_rung = 1
        pthread_mutex_unlock(&engine.gate)
        wake_ring(engine.wake_fd)
        pthread_mutex_lock(&engine.gate)
    while request.status == IN_PROGRESS and start - request.left < INLINE_WEIGHT:
        if not copy_one(engine, request):
            break
    if request.status == IN_PROGRESS and not request.is_open:  # the last of it is being copied by others
        pthread_mutex_unlock(&engine.gate)
        spin(request, now_ns() + SPIN_NS)
        pthread_mutex_lock(&engine.gate)
    if request.status == IN_PROGRESS and engine.is_sleeping:
        wake_ring(engine.wake_fd)
