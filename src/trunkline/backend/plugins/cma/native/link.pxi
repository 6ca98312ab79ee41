# Links to other processes, their failure, and the connections that others keep to us.

cdef extern from *:
    """
    #include <stdio.h>

    static void say_ended(char *to, size_t size, int pid) {
        snprintf(to, size, "process %d has ended, or has closed its agent", pid);
    }
    static void say_failed(char *to, size_t size, int is_write, long long row, unsigned long long length,
                           unsigned long long address, int pid, int error) {
        char text[64];
        const char *said = strerror_r(error, text, sizeof text);
        const char *name = error == EFAULT ? "EFAULT" : error == EPERM ? "EPERM" : error == ENOMEM ? "ENOMEM" : NULL;
        char number[24];
        snprintf(number, sizeof number, "errno %d", error);
        snprintf(to, size, "process_vm_%s: row %lld (%llu bytes at 0x%llx of process %d): %s (%s)%s",
                 is_write ? "writev" : "readv", row, length, address, pid, name ? name : number, said,
                 error == EFAULT ? "; memory of one of the two sides is not mapped, or may not be used so" : "");
    }
    """
    void say_ended(char *, size_t, int pid) noexcept nogil
    void say_failed(char *, size_t, bint is_write, long long row, unsigned long long length,
                    unsigned long long address, int pid, int error) noexcept nogil


cdef void link_break(link_t *link, const char *reason) noexcept nogil:
    """The process is gone: fail what is posted to it, and have that reported. The gate is held."""
    cdef engine_t *engine = link.engine
    if link.life != READY:
        return
    link.life = BROKEN
    copy_reason(link.reason, reason)
    events_drop(engine.epoll, link.socket)
    events_drop(engine.epoll, link.pidfd)
    link.is_failed = True
    link.next_failed = engine.failed
    engine.failed = link
    fail_all(engine, link, reason)
    if engine.is_sleeping:
        wake_ring(engine.wake_fd)


cdef void link_retire(link_t *link, const char *reason) noexcept nogil:
    """The process lives, but can't be reached in this way any more. The gate is held."""
    if link.life == READY:
        link.life = UNREADY
        copy_reason(link.reason, reason)
        events_drop(link.engine.epoll, link.socket)
        events_drop(link.engine.epoll, link.pidfd)


cdef void link_check(link_t *link) noexcept nogil:
    """Break a link whose process has hung up. The gate is held."""
    cdef char reason[REASON_SIZE]
    if link.life == READY and has_event(link.socket, link.pidfd, 0):
        say_ended(reason, REASON_SIZE, link.pid)
        link_break(link, reason)


cdef void link_disconnect(link_t *link) noexcept nogil:
    """Close its descriptors; no lane is in use to it. The gate is held."""
    if link.engine.epoll >= 0:
        events_drop(link.engine.epoll, link.socket)
        events_drop(link.engine.epoll, link.pidfd)
    descriptor_close(link.socket)
    descriptor_close(link.pidfd)
    link.socket = link.pidfd = -1


cdef void link_forget_failure(link_t *link) noexcept nogil:
    cdef link_t **at = &link.engine.failed
    if link.is_failed:
        while at[0] != link:
            at = &at[0].next_failed
        at[0] = link.next_failed
        link.is_failed = False


cdef void accepted_close(engine_t *engine, int at) noexcept nogil:
    events_drop(engine.epoll, engine.accepted[at])  # closing does not, as long as a cloned child has it, too
    descriptor_close(engine.accepted[at])
    engine.accepted_count -= 1
    engine.accepted[at] = engine.accepted[engine.accepted_count]


cdef void listen_again(engine_t *engine) noexcept nogil:
    if not engine.is_listening and engine.listener >= 0 and now_ns() >= engine.listen_ns:
        engine.is_listening = events_want(engine.epoll, engine.listener) == 0
        engine.listen_ns = now_ns() + RETRY_NS


cdef void accept_some(engine_t *engine) noexcept nogil:
    """Greet those of our own user who connect, up to the limit; hang up on others."""
    cdef int passes, descriptor, pid
    cdef unsigned uid
    for passes in range(16):
        descriptor = socket_accept(engine.listener)
        if descriptor < 0:
            if errno == EMFILE or errno == ENFILE or errno == ENOMEM or errno == ENOBUFS:
                events_drop(engine.epoll, engine.listener)
                engine.is_listening = False
                engine.listen_ns = now_ns() + RETRY_NS
            return
        if (engine.accepted_count >= engine.accepted_limit
                or socket_owner(descriptor, &pid, &uid) or uid != geteuid()
                or send(descriptor, engine.hello, engine.hello_size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0
                or events_want(engine.epoll, descriptor)):
            descriptor_close(descriptor)
        else:
            engine.accepted[engine.accepted_count] = descriptor
            engine.accepted_count += 1


cdef void handle_events(engine_t *engine, const int *ready, int count) noexcept nogil:
    """The gate is held. A descriptor may have been closed, and its number reused, since it was reported."""
    cdef int at, number
    cdef link_t *link
    for number in range(count):
        if ready[number] == engine.wake_fd:
            wake_drain(engine.wake_fd)
            continue
        if ready[number] == engine.listener:
            accept_some(engine)
            continue
        for at in range(engine.accepted_count):
            if engine.accepted[at] == ready[number]:
                if has_event(ready[number], -1, 0):  # it has nothing to say: it has hung up, or is none of ours
                    accepted_close(engine, at)
                break
        link = engine.links
        while link != NULL:
            if link.socket == ready[number] or link.pidfd == ready[number]:
                link_check(link)
            link = link.next
