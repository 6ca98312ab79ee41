# Connections to peers, and what UCX calls back. Callbacks run with the gate held.

cdef size_t _request_size = 0  # of what UCX keeps in front of the request that its callers see


cdef void request_made(void *request) noexcept nogil:
    """Clear a request that UCX has just taken from the heap.

    UCX 1.22 does not say in the answers to reads (ucp_get_req_handler) of what data type they are, and asks for it when
    it drops those that wait to be sent to a peer that is gone (ucp_request_send_state_ff): it crashed on what the heap
    held there. Nothing that we use leaves another type in a request than the one that is all zeros.
    """
    memset(<char *> request - _request_size, 0, _request_size)


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


cdef void tell(worker_t *worker) noexcept nogil:
    """There is something to take: end the sleep of whoever sleeps, without waking those who poll anyway."""
    if worker.is_sleeping:
        wake_ring(worker.wake_fd)
    if worker.is_parked:
        pthread_cond_broadcast(&worker.resume)


cdef void copy_text(char *target, const char *source, size_t room) noexcept nogil:
    cdef size_t size = strnlen(source, room - 1)
    memcpy(target, source, size)
    target[size] = 0


cdef inline void copy_reason(char *target, const char *source) noexcept nogil:
    copy_text(target, source, REASON_SIZE)


cdef bint connection_must_wait(connection_t *connection) noexcept nogil:
    """Whether bytes of an earlier connection may still reach the peer: nothing orders them before a new one's."""
    cdef worker_t *worker = connection.worker
    cdef connection_t *other
    if left_has(&worker.left, connection.identity):
        return True
    if worker.unsettled:
        other = worker.connections
        while other != NULL:
            if other.identity == connection.identity and other.is_broken and not other.is_closing and other.ep != NULL:
                return True  # `settle` has yet to close it
            other = other.next
    return False


cdef int connection_make(connection_t *connection) noexcept nogil:
    cdef ucp_ep_params_t params
    cdef ucs_status_t status
    params.field_mask = (
        UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLER | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE)
    params.address = <const ucp_address_t *> connection.address
    params.err_mode = UCP_ERR_HANDLING_MODE_PEER
    params.err_handler.cb = connection_failed
    params.err_handler.arg = connection
    status = ucp_ep_create(connection.worker.ucp, &params, &connection.ep)
    if status != UCS_OK:
        connection.ep = NULL
    free(connection.address)
    connection.address = NULL
    return <int> status


cdef int connection_open(worker_t *worker, endpoint_t *endpoint, void *address) noexcept nogil:
    """Give an endpoint a connection, held if it has to wait; return a ucs_status_t.

    `address` comes from malloc and is taken over. It is followed by zeros, since UCX is not told its size.
    """
    cdef int status
    cdef connection_t *connection = <connection_t *> calloc(1, sizeof(connection_t))
    if connection == NULL or worker.is_closed:
        free(connection)
        free(address)
        return <int> (UCS_ERR_CANCELED if worker.is_closed else UCS_ERR_NO_MEMORY)
    connection.worker = worker
    connection.identity = endpoint.identity
    connection.address = address
    connection.is_held = connection_must_wait(connection)
    if not connection.is_held:
        status = connection_make(connection)
        if status != UCS_OK:
            free(connection)
            return status
    connection.endpoint = endpoint
    endpoint.connection = connection
    endpoint.failure[0] = 0
    connection.next = worker.connections
    if connection.next != NULL:
        connection.next.previous = connection
    worker.connections = connection
    return UCS_OK


cdef void connection_hold(connection_t *connection, request_t *request) noexcept nogil:
    request.is_held = True
    request.next = NULL
    request.previous = connection.held_last
    if connection.held_last == NULL:
        connection.held_first = request
    else:
        connection.held_last.next = request
    connection.held_last = request


cdef void connection_drop(connection_t *connection, request_t *request) noexcept nogil:
    """Take a request off the list of those held."""
    request.is_held = False
    if request.previous == NULL:
        connection.held_first = request.next
    else:
        request.previous.next = request.next
    if request.next == NULL:
        connection.held_last = request.previous
    else:
        request.next.previous = request.previous


cdef void connection_release(connection_t *connection) noexcept nogil:
    """Hold no longer: `settle` takes the requests on, in the order in which they came."""
    cdef request_t *request
    connection.is_held = False
    while connection.held_last != NULL:  # the last one made ready is the first one taken
        request = connection.held_last
        connection_drop(connection, request)
        make_ready(request)


cdef void connection_begin(connection_t *connection) noexcept nogil:
    """Make a connection that was held."""
    cdef int status = connection_make(connection)
    if status == UCS_OK:
        connection_release(connection)
    else:
        connection_break(connection, ucs_status_string(<ucs_status_t> status), True)


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
    connection_release(connection)
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
    if connection.ep == NULL:
        connection.is_closed = True
        return
    if force and (connection.users or not connection.worker.is_closed):  # else nothing is stuck, and the worker ends
        endpoint_sever(&connection.worker.left, connection.identity, connection.worker.event_fd, connection.ep)
    operation = ucp_ep_close_nbx(connection.ep, &param)
    if operation == NULL or UCS_PTR_IS_ERR(operation):
        connection.is_closed = True


cdef void connection_retire_key(connection_t *connection, int32_t slot) noexcept nogil:
    """Destroy an unpacked key, at once or when nothing is in flight; without memory to remember it, it leaks."""
    cdef retired_t *retired
    if not 0 <= slot < connection.keys_size or connection.keys[slot] == NULL:
        return
    if connection.users == 0:
        ucp_rkey_destroy(connection.keys[slot])
    else:
        retired = <retired_t *> malloc(sizeof(retired_t))
        if retired != NULL:
            retired.key = connection.keys[slot]
            retired.next = connection.retired
            connection.retired = retired
    connection.keys[slot] = NULL


cdef void connection_sweep(connection_t *connection) noexcept nogil:
    cdef retired_t *retired
    while connection.retired != NULL:
        retired = connection.retired
        connection.retired = retired.next
        ucp_rkey_destroy(retired.key)
        free(retired)


cdef void connection_forget_keys(connection_t *connection) noexcept nogil:
    cdef int32_t slot
    connection_sweep(connection)
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
    free(connection.address)
    free(connection)


cdef ucp_rkey_h connection_key(
        connection_t *connection, int32_t slot, uint64_t address, uint64_t length, int *status) noexcept nogil:
    """Return the remote key for a range, unpacked for this connection."""
    cdef ucp_rkey_h *grown
    cdef int32_t size
    cdef void *packed
    packed = table_cover(&connection.endpoint.keys, slot, address, length)
    if packed == NULL:
        status[0] = UCS_ERR_INVALID_PARAM
        return NULL
    if slot < connection.keys_size and connection.keys[slot] != NULL:
        return connection.keys[slot]
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
