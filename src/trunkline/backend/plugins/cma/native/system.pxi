# What we need of the machine: clock, lock, bell, descriptors that no forked child keeps, sockets, memory of other processes.

cdef extern from *:
    """
    #include <errno.h>
    #include <poll.h>
    #include <pthread.h>
    #include <stddef.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/mman.h>
    #include <sys/random.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <sys/uio.h>
    #include <sys/un.h>
    #include <time.h>
    #include <unistd.h>

    #ifndef SYS_pidfd_open
    #define SYS_pidfd_open 434
    #endif
    #ifndef MADV_WIPEONFORK
    #define MADV_WIPEONFORK 18
    #endif

    static inline int64_t now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    static inline void errno_clear(void) { errno = 0; }
    static inline void relax(void) {
    #if defined(__x86_64__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ volatile("yield");
    #endif
    }
    static inline int read_int(const int *value) { return __atomic_load_n(value, __ATOMIC_RELAXED); }
    static inline int is_set(void *const *value) { return __atomic_load_n(value, __ATOMIC_RELAXED) != NULL; }

    static void bell_open(pthread_cond_t *bell) {
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(bell, &attributes);
        pthread_condattr_destroy(&attributes);
    }
    static void bell_wait(pthread_cond_t *bell, pthread_mutex_t *gate, int64_t until) {
        struct timespec t = {until / 1000000000LL, until % 1000000000LL};
        pthread_cond_timedwait(bell, gate, &t);
    }

    /* All our descriptors, so that a forked child gives its copies back at once: as long as it had them, nobody would
       see its parent hang up. They are made and closed under this lock, which a fork waits for. */
    static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
    static int *kept;
    static int kept_count, kept_room;
    /* How often this process is a fork of a fork; objects remember the number they were made under. */
    static unsigned fork_count;

    static void before_fork(void) { pthread_mutex_lock(&kept_lock); }
    static void after_fork(void) { pthread_mutex_unlock(&kept_lock); }
    static void forked(void) {
        for (int i = 0; i < kept_count; i++) close(kept[i]);
        kept_count = 0;
        fork_count++;
        pthread_mutex_unlock(&kept_lock);
    }
    static void watch_forks(void) { pthread_atfork(before_fork, after_fork, forked); }

    static int keep(int descriptor) { /* the lock is held */
        if (descriptor < 0) return -1;
        if (kept_count == kept_room) {
            int room = kept_room ? 2 * kept_room : 64;
            int *grown = realloc(kept, room * sizeof *kept);
            if (grown == NULL) {
                close(descriptor);
                errno = ENOMEM;
                return -1;
            }
            kept = grown;
            kept_room = room;
        }
        return kept[kept_count++] = descriptor;
    }
    static int keep_new(int (*make)(int), int argument) {
        pthread_mutex_lock(&kept_lock);
        int descriptor = keep(make(argument));
        int error = errno;
        pthread_mutex_unlock(&kept_lock);
        errno = error;
        return descriptor;
    }
    static void descriptor_close(int descriptor) {
        if (descriptor < 0) return;
        pthread_mutex_lock(&kept_lock);
        for (int i = 0; i < kept_count; i++)
            if (kept[i] == descriptor) {
                kept[i] = kept[--kept_count];
                close(descriptor);
                break;
            }
        pthread_mutex_unlock(&kept_lock);
    }

    static int make_wake(int flags) { return eventfd(0, flags); }
    static int make_accepted(int listener) { return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK); }
    static int make_socket(int flags) { return socket(AF_UNIX, SOCK_SEQPACKET | flags, 0); }
    static int make_pidfd(int pid) { return (int) syscall(SYS_pidfd_open, pid, 0); }
    static int wake_open(void) { return keep_new(make_wake, EFD_CLOEXEC | EFD_NONBLOCK); }
    static int epoll_open(void) { return keep_new(epoll_create1, EPOLL_CLOEXEC); }
    static int socket_open(void) { return keep_new(make_socket, SOCK_CLOEXEC | SOCK_NONBLOCK); }
    static int socket_accept(int listener) { return keep_new(make_accepted, listener); }
    static int pidfd_open(int pid) { return keep_new(make_pidfd, pid); } /* close-on-exec by itself; Linux 5.3 */
    static void wake_ring(int descriptor) { (void)!eventfd_write(descriptor, 1); }
    static void wake_drain(int descriptor) { eventfd_t n; (void)!eventfd_read(descriptor, &n); }

    static socklen_t abstract_address(struct sockaddr_un *to, const char *name, size_t size) {
        memset(to, 0, sizeof *to);
        to->sun_family = AF_UNIX;
        if (size > sizeof to->sun_path - 1) size = sizeof to->sun_path - 1;
        memcpy(to->sun_path + 1, name, size);
        return offsetof(struct sockaddr_un, sun_path) + 1 + size;
    }
    static int socket_listen(int descriptor, const char *name, size_t size) {
        struct sockaddr_un address;
        socklen_t length = abstract_address(&address, name, size);
        return bind(descriptor, (struct sockaddr *) &address, length) || listen(descriptor, 128) ? errno : 0;
    }
    static int socket_connect(int descriptor, const char *name, size_t size) {
        struct sockaddr_un address;
        socklen_t length = abstract_address(&address, name, size);
        return connect(descriptor, (struct sockaddr *) &address, length) ? errno : 0;
    }
    static int socket_owner(int descriptor, int *pid, unsigned *uid) {
        struct ucred owner;
        socklen_t length = sizeof owner;
        if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &owner, &length)) return errno;
        *pid = owner.pid;
        *uid = owner.uid;
        return 0;
    }

    static int events_want(int epoll, int descriptor) {
        struct epoll_event event = {EPOLLIN | EPOLLRDHUP, {.fd = descriptor}};
        return epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) ? errno : 0;
    }
    static void events_drop(int epoll, int descriptor) { epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, NULL); }
    static int events_take(int epoll, int *ready, int room, int64_t timeout_ns) {
        struct epoll_event events[16];
        int timeout = timeout_ns > 0 ? (int) ((timeout_ns + 999999) / 1000000) : 0;
        int count = epoll_wait(epoll, events, room < 16 ? room : 16, timeout);
        for (int i = 0; i < count; i++) ready[i] = events[i].data.fd;
        return count < 0 ? 0 : count;
    }
    /* Whether anything can be read, a hang-up included. */
    static int has_event(int first, int second, int timeout_ms) {
        struct pollfd set[2] = {{first, POLLIN | POLLRDHUP, 0}, {second, POLLIN, 0}};
        return poll(set, 2, timeout_ms) > 0;
    }

    static void *page_open(size_t size) { /* a forked child sees zeros in it */
        void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) return NULL;
        madvise(page, size, MADV_WIPEONFORK);
        return page;
    }
    """
    cdef enum:
        EAGAIN, ECONNREFUSED, EFAULT, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSYS, EPERM, ESRCH
        MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC
    int errno
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    struct iovec:
        void *iov_base
        size_t iov_len
    int64_t now_ns() noexcept nogil
    void errno_clear() noexcept nogil
    void relax() noexcept nogil
    int read_int(const int *) noexcept nogil
    bint is_set(void *const *) noexcept nogil
    int pthread_mutex_init(pthread_mutex_t *, void *) noexcept nogil
    int pthread_mutex_lock(pthread_mutex_t *) noexcept nogil
    int pthread_mutex_unlock(pthread_mutex_t *) noexcept nogil
    int pthread_cond_broadcast(pthread_cond_t *) noexcept nogil
    void bell_open(pthread_cond_t *) noexcept nogil
    void bell_wait(pthread_cond_t *, pthread_mutex_t *, int64_t until) noexcept nogil
    unsigned fork_count
    void watch_forks() noexcept nogil
    void descriptor_close(int) noexcept nogil
    int wake_open() noexcept nogil
    int epoll_open() noexcept nogil
    int socket_open() noexcept nogil
    int socket_accept(int) noexcept nogil
    int pidfd_open(int) noexcept nogil
    void wake_ring(int) noexcept nogil
    void wake_drain(int) noexcept nogil
    int socket_listen(int, const char *, size_t) noexcept nogil
    int socket_connect(int, const char *, size_t) noexcept nogil
    int socket_owner(int, int *pid, unsigned *uid) noexcept nogil
    int events_want(int, int) noexcept nogil
    void events_drop(int, int) noexcept nogil
    int events_take(int, int *, int, int64_t) noexcept nogil
    bint has_event(int, int, int) noexcept nogil
    void *page_open(size_t) noexcept nogil
    int munmap(void *, size_t) noexcept nogil
    ssize_t getrandom(void *, size_t, unsigned) noexcept nogil
    ssize_t send(int, const void *, size_t, int) noexcept nogil
    ssize_t recv(int, void *, size_t, int) noexcept nogil
    int getpid() noexcept nogil
    unsigned geteuid() noexcept nogil
    size_t strnlen(const char *, size_t) noexcept nogil
    ssize_t process_vm_readv(int, const iovec *, unsigned long, const iovec *, unsigned long, unsigned long) noexcept nogil
    ssize_t process_vm_writev(int, const iovec *, unsigned long, const iovec *, unsigned long, unsigned long) noexcept nogil
