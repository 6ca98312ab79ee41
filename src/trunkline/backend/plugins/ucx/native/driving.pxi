# Progress, and who sleeps when.

cdef void rest(worker_t *worker) noexcept nogil:
    """Drive UCX until nothing moves, so that an endpoint may be closed by force.

    A flush that could not start on all lanes goes on in a callback of the next progress; UCX (1.22) forgets to take
    it back when it frees the endpoint, and crashes (ucp_ep_flush_resume_slow_path_callback).
    """
    cdef int passes
    for passes in range(REST_PASSES):
        if ucp_worker_progress(worker.ucp) == 0:
            break


cdef unsigned settle(worker_t *worker) noexcept nogil:
    """Do what the callbacks left to do: next steps of requests, closing of broken connections, making of held ones."""
    cdef request_t *request
    cdef connection_t *connection
    cdef connection_t *following
    cdef unsigned steps = 0
    while True:
        while worker.ready != NULL:
            request = worker.ready
            worker.ready = request.next_ready
            request.is_ready = False
            advance(request)
            steps += 1
        if not worker.unsettled and not worker.has_let_go:
            return steps
        worker.has_let_go = False
        connection = worker.connections
        while connection != NULL:
            following = connection.next
            if connection.is_broken and not connection.is_closing:
                rest(worker)
                connection_close(connection, True)
            if connection.is_closed and connection.users == 0:
                connection_free(connection)
                steps += 1
            elif (connection.is_held and not connection.is_closing and not worker.is_closed
                  and not connection_must_wait(connection)):
                connection_begin(connection)
                steps += 1
            connection = following
        if worker.ready == NULL:
            return steps


cdef unsigned progress(worker_t *worker) noexcept nogil:
    """Drive the worker once; return 0 if nothing happened. The gate is held."""
    cdef unsigned steps
    if worker.ucp == NULL:
        return 0
    steps = ucp_worker_progress(worker.ucp)
    if worker.left.count and left_read(&worker.left):
        worker.has_let_go = True
    if worker.ready != NULL or worker.unsettled or worker.has_let_go:
        steps += settle(worker)
    return steps


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
    descriptors_wait(worker.event_fd, worker.wake_fd, worker.left.epoll, until - now)
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
    cdef int64_t aside
    cdef bint news
    while True:
        aside = ASIDE_NS
        # Stepping aside takes no gate, and so costs those who poll nothing; a late look at these fields does no harm.
        now = now_ns()
        while (now < until and not has_news(worker)
               and ((worker.waiting and not worker.is_sleeping) or now - worker.polled_ns < POLLED_NS)):
            descriptors_wait(worker.wake_fd, -1, -1, min(until - now, aside))
            aside = min(2 * aside, LONGEST_ASIDE_NS) if worker.waiting else ASIDE_NS
            now = now_ns()
        gate_enter(&worker.gate)
        news = has_news(worker)
        if news or now >= until:
            break
        if worker.waiting and worker.is_sleeping:
            worker.is_parked = True
            bell_wait(&worker.resume, &worker.gate, until)
            worker.is_parked = False
        elif not worker.waiting and not progress(worker):
            sleep_until(worker, until)
        gate_leave(&worker.gate)
        gate_yield(&worker.gate)
    if worker.is_woken:
        worker.is_woken = False
        wake_drain(worker.wake_fd)
    gate_leave(&worker.gate)
    return news
