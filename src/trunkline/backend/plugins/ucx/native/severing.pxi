# Taking the TCP connections away from an endpoint that is closed by force.
#
# UCX 1.22 does not close them: where both sides have an endpoint on one TCP connection (and a peer's side makes its own
# as soon as it is asked to), uct_tcp_ep_destroy keeps the connection to receive on it, with the event "can be written"
# still wanted for the data that it just dropped. Once the peer reads on, that event never ends, and the worker never
# sleeps again; and when the peer lets go of its side (UCT_TCP_CM_CONN_FIN), uct_tcp_iface_handle_events frees the
# endpoint for the event "can be read" and then calls into it for "can be written": a crash. So UCX gets another socket
# under the same descriptor, one that has ended: it frees such an endpoint later, from its queue of callbacks.
#
# The connection itself is only closed for writing, and kept until the peer has closed it too. A reset would not do: a
# peer whose UCX answers what it was asked to read aborts if it can't send (ucp_request_try_send).
#
# UCX does not say which sockets are an endpoint's. But its worker's descriptor is an epoll set that holds those of its
# interfaces, TCP's interface files each socket under its uct_ep_h, and a ucp_ep_h holds its uct_ep_h's (uct_eps, in
# 1.22 at bytes 16 to 56 of 64). So a socket is the endpoint's if what it is filed under is found in there. Where UCX is
# laid out differently, none is found, and the close is the plain one.

cdef extern from *:
    """
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <stdio.h>
    #include <sys/epoll.h>
    #include <sys/socket.h>

    #define ENDPOINT_WORDS 8
    #define LEFT_LIMIT 64

    /* Connections that were taken away and that their peers have not closed yet. */
    typedef struct {
        int count;
        int descriptor[LEFT_LIMIT];
    } left_t;

    typedef struct {
        int descriptor;
        unsigned events;
        unsigned long long filed_under;
    } member_t;

    static FILE *members_open(int epoll) {
        char path[64];
        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", epoll);
        return fopen(path, "re");
    }

    /* The next member of an epoll set. */
    static int members_next(FILE *members, member_t *found) {
        char line[256];
        while (fgets(line, sizeof(line), members) != NULL) {
            if (sscanf(line, "tfd: %d events: %x data: %llx", &found->descriptor, &found->events,
                       &found->filed_under) == 3) return 1;
        }
        return 0;
    }

    /* Close what the peers have closed as well, or everything. */
    static void left_sweep(left_t *left, int all) {
        int kept = 0;
        for (int i = 0; i < left->count; i++) {
            struct tcp_info info = {0};
            socklen_t size = sizeof(info);
            int is_known = getsockopt(left->descriptor[i], IPPROTO_TCP, TCP_INFO, &info, &size) == 0;
            int is_open = info.tcpi_state == TCP_ESTABLISHED || info.tcpi_state == TCP_FIN_WAIT1
                          || info.tcpi_state == TCP_FIN_WAIT2;
            if (!all && is_known && is_open) left->descriptor[kept++] = left->descriptor[i];
            else close(left->descriptor[i]);
        }
        left->count = kept;
    }

    static void left_add(left_t *left, int descriptor) {
        if (left->count == LEFT_LIMIT) {  /* so many peers that stand still: the oldest has waited longest */
            close(left->descriptor[0]);
            memmove(left->descriptor, left->descriptor + 1, (LEFT_LIMIT - 1) * sizeof(int));
            left->count--;
        }
        left->descriptor[left->count++] = descriptor;
    }

    static void socket_take(left_t *left, int epoll, const member_t *member) {
        struct epoll_event event = {.events = member->events, .data.u64 = member->filed_under};
        int protocol = 0, taken, ended[2];
        socklen_t size = sizeof(protocol);
        if (getsockopt(member->descriptor, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0 || protocol != IPPROTO_TCP)
            return;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ended) != 0) return;
        close(ended[1]);
        taken = fcntl(member->descriptor, F_DUPFD_CLOEXEC, 0);
        if (taken >= 0) {
            /* The set knows a member by its descriptor and its socket: out with the one, in with the other. */
            epoll_ctl(epoll, EPOLL_CTL_DEL, member->descriptor, NULL);
            dup3(ended[0], member->descriptor, O_CLOEXEC);
            epoll_ctl(epoll, EPOLL_CTL_ADD, member->descriptor, &event);
            shutdown(taken, SHUT_WR);
            left_add(left, taken);
        }
        close(ended[0]);
    }

    static void endpoint_sever(left_t *left, int event_fd, const void *ep) {
        const uint64_t *words = ep;
        FILE *interfaces = members_open(event_fd), *sockets;
        member_t interface, member;
        if (interfaces == NULL) return;
        left_sweep(left, 0);
        while (members_next(interfaces, &interface)) {
            sockets = members_open(interface.descriptor);
            if (sockets == NULL) continue;
            while (members_next(sockets, &member)) {
                for (int word = 0; word < ENDPOINT_WORDS; word++) {
                    if (member.filed_under != 0 && words[word] == member.filed_under) {
                        socket_take(left, interface.descriptor, &member);
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
        int count
    void endpoint_sever(left_t *, int event_fd, const void *ep) noexcept nogil
    void left_sweep(left_t *, bint all) noexcept nogil
