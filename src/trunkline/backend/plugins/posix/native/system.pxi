# What we need of the machine: clock, lock, bells, system calls, forks.

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <limits.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/stat.h>
    #include <sys/uio.h>
    #include <time.h>
    #include <unistd.h>

    static inline int64_t now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    static void bell_open(pthread_cond_t *bell) {
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(bell, &attributes);
        pthread_condattr_destroy(&attributes);
    }
    static void bell_wait(pthread_cond_t *bell, pthread_mutex_t *mutex, int64_t until) {
        struct timespec t = {until / 1000000000LL, until % 1000000000LL};
        pthread_cond_timedwait(bell, mutex, &t);
    }
    static int64_t file_size(int descriptor) {
        struct stat s;
        return fstat(descriptor, &s) ? -1 : s.st_size;
    }

    /* The C library's struct statx may be older than these fields (Linux 6.1): at bytes 152 and 156 of it. */
    static int direct_io_alignment(int descriptor, uint32_t *memory, uint32_t *offset) {
        union { struct statx s; char bytes[256]; } answer;
        const unsigned wanted = 0x2000; /* STATX_DIOALIGN */
        memset(&answer, 0, sizeof answer);
        if (statx(descriptor, "", AT_EMPTY_PATH, wanted, &answer.s) || !(answer.s.stx_mask & wanted)) return 0;
        memcpy(memory, answer.bytes + 152, 4);
        memcpy(offset, answer.bytes + 156, 4);
        return 1;
    }

    /* How often this process is a fork of a fork; objects remember the number they were made under. */
    static unsigned fork_count;
    static void forked(void) { fork_count++; }
    static void watch_forks(void) { pthread_atfork(NULL, NULL, forked); }
    """
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    struct iovec:
        void *iov_base
        size_t iov_len
    enum: IOV_MAX
    unsigned fork_count
    void watch_forks()
    int64_t now_ns() noexcept nogil
    void bell_open(pthread_cond_t *) noexcept nogil
    void bell_wait(pthread_cond_t *, pthread_mutex_t *, int64_t until) noexcept nogil
    int pthread_mutex_init(pthread_mutex_t *, void *) noexcept nogil
    int pthread_mutex_lock(pthread_mutex_t *) noexcept nogil
    int pthread_mutex_unlock(pthread_mutex_t *) noexcept nogil
    int pthread_cond_init(pthread_cond_t *, void *) noexcept nogil
    int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *) noexcept nogil
    int pthread_cond_signal(pthread_cond_t *) noexcept nogil
    int pthread_cond_broadcast(pthread_cond_t *) noexcept nogil
    int64_t file_size(int descriptor) noexcept nogil
    int direct_io_alignment(int descriptor, uint32_t *, uint32_t *) noexcept nogil
    ssize_t preadv(int, const iovec *, int, int64_t) noexcept nogil
    ssize_t pwritev(int, const iovec *, int, int64_t) noexcept nogil
    ssize_t pread(int, void *, size_t, int64_t) noexcept nogil
    ssize_t pwrite(int, const void *, size_t, int64_t) noexcept nogil
    int fdatasync(int) noexcept nogil
    int close(int) noexcept nogil
    int posix_memalign(void **, size_t, size_t) noexcept nogil
