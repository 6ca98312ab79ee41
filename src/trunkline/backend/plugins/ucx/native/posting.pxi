# The life of a posted request: windows, notification, end. The gate is held throughout.

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
        if request.connection.users == 0:
            connection_sweep(request.connection)
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
    while (request.row < request.rows and budget > 0 and operations < WINDOW_OPERATIONS and request.error == 0
           and not connection.is_broken):
        row = request.row
        size = request.length[row] - request.row_offset
        if size > <uint64_t> budget:
            size = budget
        # The whole row, in every window: its slots may have passed to other segments since the last one.
        param.memh = table_cover(&worker.memory, request.local_slot[row], request.local[row], request.length[row])
        key = connection_key(
            connection, request.remote_slot[row], request.remote[row], request.length[row], &request.error)
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
            if request.connection.is_held:
                connection_hold(request.connection, request)
                return
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
