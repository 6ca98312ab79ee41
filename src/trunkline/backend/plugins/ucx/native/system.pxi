# What we need of the machine: clock, lock, bells, descriptors, forks.

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <pthread.h>
    #include <sched.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/eventfd.h>
    #include <time.h>
    #include <unistd.h>

    static inline int64_t now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000000000LL + t.tv_nsec;
    }

    /* A mutex whose holder can see that others want it, so that a loop which takes it again and again
       (progress) lets them in. */
    typedef struct {
        pthread_mutex_t mutex;
        int wanted;
    } gate_t;

    static inline void gate_enter(gate_t *gate) {
        if (pthread_mutex_trylock(&gate->mutex) == 0) return;
        __atomic_add_fetch(&gate->wanted, 1, __ATOMIC_RELAXED);
        pthread_mutex_lock(&gate->mutex);
        __atomic_sub_fetch(&gate->wanted, 1, __ATOMIC_RELAXED);
    }
    static inline int gate_try(gate_t *gate) { return pthread_mutex_trylock(&gate->mutex) == 0; }
    static inline void gate_leave(gate_t *gate) { pthread_mutex_unlock(&gate->mutex); }
    static inline void gate_yield(gate_t *gate) { /* not holding it */
        for (int i = 0; i < 100 && __atomic_load_n(&gate->wanted, __ATOMIC_RELAXED); i++) sched_yield();
    }
    static void bell_open(pthread_cond_t *bell) {
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(bell, &attributes);
        pthread_condattr_destroy(&attributes);
    }
    static void bell_wait(pthread_cond_t *bell, gate_t *gate, int64_t until) {
        struct timespec t = {until / 1000000000LL, until % 1000000000LL};
        pthread_cond_timedwait(bell, &gate->mutex, &t);
    }
    static void descriptors_wait(int first, int second, int third, int64_t timeout_ns) {
        struct pollfd set[3] = {{first, POLLIN, 0}, {second, POLLIN, 0}, {third, POLLIN, 0}};
        struct timespec t = {timeout_ns / 1000000000LL, timeout_ns % 1000000000LL};
        ppoll(set, 3, &t, NULL);
    }
    static int wake_open(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }
    static void wake_ring(int descriptor) { (void)!eventfd_write(descriptor, 1); }
    static void wake_drain(int descriptor) { eventfd_t n; (void)!eventfd_read(descriptor, &n); }
    static void descriptor_close(int descriptor) { if (descriptor >= 0) close(descriptor); }
    static void close_on_exec(int descriptor) { fcntl(descriptor, F_SETFD, FD_CLOEXEC); }

    /* How often this process is a fork of a fork; objects remember the number they were made under. */
    static unsigned fork_count;
    static void forked(void) { fork_count++; }
    static void watch_forks(void) { pthread_atfork(NULL, NULL, forked); }
    """
    ctypedef struct gate_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int64_t now_ns() noexcept nogil
    void gate_enter(gate_t *) noexcept nogil
    int gate_try(gate_t *) noexcept nogil
    void gate_leave(gate_t *) noexcept nogil
    void gate_yield(gate_t *) noexcept nogil
    void bell_open(pthread_cond_t *) noexcept nogil
    void bell_wait(pthread_cond_t *, gate_t *, int64_t until) noexcept nogil
    int pthread_cond_broadcast(pthread_cond_t *) noexcept nogil
    void descriptors_wait(int, int, int, int64_t timeout_ns) noexcept nogil
    int wake_open() noexcept nogil
    void wake_ring(int) noexcept nogil
    void wake_drain(int) noexcept nogil
    void descriptor_close(int) noexcept nogil
    void close_on_exec(int) noexcept nogil
    size_t strnlen(const char *, size_t) noexcept nogil
    unsigned fork_count
    void watch_forks() noexcept nogil
