# Taking the TCP connections away from an endpoint that is closed by force.
#
# UCX 1.22 does not close them: where both sides have an endpoint on one TCP connection (and a peer's side makes its own
# as soon as it is asked to), uct_tcp_ep_destroy keeps the connection to receive on it, with the event "can be written"
# still wanted for the data that it just dropped. Once the peer reads on, that event never ends, and the worker never
# sleeps again; and when the peer lets go of its side (UCT_TCP_CM_CONN_FIN), uct_tcp_iface_handle_events frees the
# endpoint for the event "can be read" and then calls into it for "can be written": a crash. So UCX gets another socket
# under the same descriptor, one that has ended: it frees such an endpoint later, from its queue of callbacks.
#
# The connection itself is closed for writing, and read until the peer has closed it too. Only then has the peer read all
# that the kernel had taken, and only then may another connection to it be made. A reset would not do: what the peer's
# kernel has already got can be read after it, and a peer that is not one of ours, whose UCX answers what it was asked to
# read, aborts if it can't send (sending.pxi).
#
# UCX does not say which sockets are an endpoint's. But its worker's descriptor is an epoll set that holds those of its
# interfaces, TCP's interface files each socket under its uct_ep_h, and a ucp_ep_h holds its uct_ep_h's (uct_eps, in
# 1.22 at bytes 16 to 56 of 64; those not in use are NULL). So a socket is the endpoint's if what it is filed under is
# found in there. Where UCX is laid out differently, or there is no /proc, none is found, and the close is the plain one.
#
# A set names its members by the numbers that they were added under. That they still are the members' is known from their
# inodes; that they stay so, from the gate: only UCX closes its sockets. Other threads may open and close theirs: a
# number that is taken over by dup3 is at no moment free.

cdef extern from *:
    """
    #include <netinet/in.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <sys/stat.h>

    #define ENDPOINT_WORDS 8
    #define READ_AT_ONCE (4 << 20)  /* bytes of one connection, so that it does not keep the worker from the others */

    /* Connections that were taken away and that their peers have not closed yet. */
    typedef struct {
        int descriptor;
        uint64_t identity;  /* of the peer's UCX worker */
    } kept_t;

    typedef struct {
        int epoll;
        int count, room;
        kept_t *kept;
    } left_t;

    typedef struct {
        int descriptor;
        unsigned events;
        unsigned long long filed_under;
        unsigned long long inode;
    } member_t;

    static int left_open(left_t *left) { return left->epoll = epoll_create1(EPOLL_CLOEXEC); }

    static void left_close(left_t *left) {
        for (int i = 0; i < left->count; i++) close(left->kept[i].descriptor);
        free(left->kept);
        left->kept = NULL;
        left->count = left->room = 0;
        if (left->epoll >= 0) close(left->epoll);
        left->epoll = -1;
    }

    static int left_has(const left_t *left, uint64_t identity) {
        for (int i = 0; i < left->count; i++) if (left->kept[i].identity == identity) return 1;
        return 0;
    }

    /* There is one per endpoint's lane at most that its peer has not closed, since meanwhile no other is made. */
    static void left_add(left_t *left, int descriptor, uint64_t identity) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = descriptor};
        int on = 1;
        if (left->count == left->room) {
            int room = left->room ? 2 * left->room : 8;
            kept_t *grown = realloc(left->kept, room * sizeof(kept_t));
            if (grown == NULL) { close(descriptor); return; }
            left->kept = grown;
            left->room = room;
        }
        if (epoll_ctl(left->epoll, EPOLL_CTL_ADD, descriptor, &event) != 0) { close(descriptor); return; }
        setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));  /* a host that is gone closes nothing */
        left->kept[left->count++] = (kept_t) {descriptor, identity};
    }

    /* Read away what a peer still sends, which it may have to before it can close; return whether it has closed. */
    static int kept_ends(int descriptor) {
        ssize_t size = 0, total = 0;
        while (total < READ_AT_ONCE) {
            size = recv(descriptor, NULL, 1 << 20, MSG_TRUNC | MSG_DONTWAIT);
            if (size <= 0) break;
            total += size;
        }
        return size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR);
    }

    /* Look after what has changed, without waiting; return how many the peers have closed. */
    static int left_read(left_t *left) {
        struct epoll_event events[16];
        int ended = 0, ready = epoll_wait(left->epoll, events, 16, 0);
        for (int event = 0; event < ready; event++) {
            if (!kept_ends(events[event].data.fd)) continue;
            for (int i = 0; i < left->count; i++) {
                if (left->kept[i].descriptor == events[event].data.fd) {
                    left->kept[i] = left->kept[--left->count];
                    break;
                }
            }
            epoll_ctl(left->epoll, EPOLL_CTL_DEL, events[event].data.fd, NULL);
            close(events[event].data.fd);
            ended++;
        }
        return ended;
    }

    static FILE *members_open(int epoll) {
        char path[64];
        snprintf(path, sizeof(path), "/proc/thread-self/fdinfo/%d", epoll);
        return fopen(path, "re");
    }

    /* The next member of an epoll set. The kernel writes all of them when the first is read: changes do no harm. */
    static int members_next(FILE *members, member_t *found) {
        char line[256];
        while (fgets(line, sizeof(line), members) != NULL) {
            if (sscanf(line, "tfd: %d events: %x data: %llx pos:%*s ino:%llx", &found->descriptor, &found->events,
                       &found->filed_under, &found->inode) == 4) return 1;
        }
        return 0;
    }

    static int is_tcp(const member_t *member) {
        struct stat status;
        int protocol = 0;
        socklen_t size = sizeof(protocol);
        return fstat(member->descriptor, &status) == 0 && S_ISSOCK(status.st_mode) && status.st_ino == member->inode
               && getsockopt(member->descriptor, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0
               && protocol == IPPROTO_TCP;
    }

    static void socket_take(left_t *left, uint64_t identity, int epoll, const member_t *member) {
        struct epoll_event event = {.events = member->events, .data.u64 = member->filed_under};
        int taken = -1, ended[2];
        if (!is_tcp(member)) return;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ended) != 0) return;
        close(ended[1]);
        taken = fcntl(member->descriptor, F_DUPFD_CLOEXEC, 0);
        /* The set knows a member by its descriptor and its socket: out with the one, in with the other. */
        if (taken >= 0 && epoll_ctl(epoll, EPOLL_CTL_DEL, member->descriptor, NULL) == 0) {
            int is_swapped = dup3(ended[0], member->descriptor, O_CLOEXEC) >= 0;
            epoll_ctl(epoll, EPOLL_CTL_ADD, member->descriptor, &event);
            if (is_swapped) {
                shutdown(taken, SHUT_WR);
                left_add(left, taken, identity);
                taken = -1;
            }
        }
        if (taken >= 0) close(taken);
        close(ended[0]);
    }

    static void endpoint_sever(left_t *left, uint64_t identity, int event_fd, const void *ep) {
        const uint64_t *words = ep;
        FILE *interfaces = members_open(event_fd), *sockets;
        member_t interface, member;
        if (interfaces == NULL) return;
        while (members_next(interfaces, &interface)) {
            sockets = members_open(interface.descriptor);
            if (sockets == NULL) continue;
            while (members_next(sockets, &member)) {
                for (int word = 0; word < ENDPOINT_WORDS; word++) {
                    if (member.filed_under != 0 && words[word] == member.filed_under) {
                        socket_take(left, identity, interface.descriptor, &member);
                        break;
                    }
                }
            }
            fclose(sockets);
        }
        fclose(interfaces);
    }
    """
    ctypedef struct left_t:
        int epoll
        int count
    int left_open(left_t *) noexcept nogil
    void left_close(left_t *) noexcept nogil
    bint left_has(const left_t *, uint64_t identity) noexcept nogil
    int left_read(left_t *) noexcept nogil
    void endpoint_sever(left_t *, uint64_t identity, int event_fd, const void *ep) noexcept nogil
