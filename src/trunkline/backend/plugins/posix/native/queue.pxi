# Jobs, the queue that workers take them from, and the list of those that ended. One lock guards all of it.

cdef enum:
    FAILED = -2
    STOPPED = -1
    IDLE = 0
    DONE = 1
    RUNNING = 2
    BATCH_CALLS = 64  # what a worker claims at once: at most so many calls ...
    BATCH_BYTES = 1 << 20  # ... and no further one once it has so many bytes


cdef struct file_t:
    int descriptor
    uint32_t block  # what direct transfers are aligned to; 0: not direct
    int uses  # one for the registration, one for each job that runs
    int retired


cdef struct job_t:
    job_t *before
    job_t *after
    void *object
    file_t **files
    int64_t file_count
    # Per call: the file, where in it, how many bytes, and its pieces from first[call] to first[call + 1].
    const int32_t *file
    const int64_t *offset
    const int64_t *length
    const int64_t *first
    const uint8_t *bounce
    const iovec *pieces
    uint8_t *done
    int64_t call_count, sync_count  # after all calls every file is synced, if it is to be
    int64_t next  # the first call (then: sync) that nobody has claimed
    int64_t completed  # calls and syncs
    int64_t landed, started_ns, total_ns
    int state, writes, busy, waiters, is_queued, is_listed, is_stopped
    int error, error_sync
    int64_t error_file, error_offset, error_size


cdef struct jobs_t:
    job_t *first
    job_t *last


cdef struct pool_t:
    pthread_mutex_t mutex
    pthread_cond_t work, quiet, news
    jobs_t queue, ended
    int closing, woken


cdef void lock(pool_t *pool) noexcept nogil:
    pthread_mutex_lock(&pool.mutex)


cdef void unlock(pool_t *pool) noexcept nogil:
    pthread_mutex_unlock(&pool.mutex)


cdef void list_push(jobs_t *jobs, job_t *job) noexcept nogil:
    job.before, job.after = jobs.last, NULL
    if jobs.last != NULL:
        jobs.last.after = job
    else:
        jobs.first = job
    jobs.last = job


cdef void list_remove(jobs_t *jobs, job_t *job) noexcept nogil:
    if job.before != NULL:
        job.before.after = job.after
    else:
        jobs.first = job.after
    if job.after != NULL:
        job.after.before = job.before
    else:
        jobs.last = job.before


cdef job_t *list_pop(jobs_t *jobs) noexcept nogil:
    cdef job_t *job = jobs.first
    if job != NULL:
        list_remove(jobs, job)
    return job


cdef int file_release(file_t *file) noexcept nogil:
    """Take one use away; return the descriptor if it was the last, to be closed without the lock, else -1."""
    cdef int descriptor = file.descriptor
    file.uses -= 1
    if file.uses:
        return -1
    file.descriptor = -1
    return descriptor


cdef void pool_open(pool_t *pool) noexcept nogil:
    memset(pool, 0, sizeof(pool_t))
    pthread_mutex_init(&pool.mutex, NULL)
    pthread_cond_init(&pool.work, NULL)
    bell_open(&pool.quiet)
    bell_open(&pool.news)


cdef void enqueue(pool_t *pool, job_t *job) noexcept nogil:
    job.is_queued = 1
    list_push(&pool.queue, job)
    pthread_cond_signal(&pool.work)


cdef bint is_serial(const job_t *job) noexcept nogil:
    """Whether the kernel does one call of the job at a time: writers of a file wait for each other in its page cache."""
    return job.writes and job.file_count == 1 and job.files[0].block == 0


cdef void job_start(pool_t *pool, job_t *job) noexcept nogil:
    cdef int64_t index
    if job.is_listed:
        list_remove(&pool.ended, job)
        job.is_listed = 0
    job.state = RUNNING
    job.next = job.completed = job.landed = job.total_ns = 0
    job.busy = job.is_stopped = job.error = job.error_sync = 0
    job.started_ns = now_ns()
    memset(job.done, 0, job.call_count)
    for index in range(job.file_count):
        job.files[index].uses += 1
    enqueue(pool, job)


cdef void job_end(pool_t *pool, job_t *job, int state) noexcept nogil:
    cdef int64_t index
    cdef int descriptor
    for index in range(job.file_count):
        descriptor = file_release(job.files[index])
        if descriptor >= 0:  # it was deregistered meanwhile
            close(descriptor)
    job.total_ns = now_ns() - job.started_ns
    job.state = state
    job.is_listed = 1
    list_push(&pool.ended, job)
    if job.waiters:
        pthread_cond_broadcast(&pool.quiet)
    else:
        pthread_cond_broadcast(&pool.news)


cdef void job_settle(pool_t *pool, job_t *job) noexcept nogil:
    """After a change: end the job, have the next part of it done, or wait for those who are at it."""
    if job.busy or job.state != RUNNING:
        return
    if job.error:
        job_end(pool, job, FAILED)
    elif job.completed == job.call_count + job.sync_count:
        job_end(pool, job, DONE)
    elif pool.closing:
        job_end(pool, job, FAILED)
    elif job.is_stopped:
        job_end(pool, job, STOPPED)
    elif not job.is_queued:
        if pool.queue.first != NULL:
            pthread_cond_signal(&pool.work)  # the worker that is just here takes the other one
        job.is_queued = 1
        list_push(&pool.queue, job)


cdef void job_unqueue(pool_t *pool, job_t *job) noexcept nogil:
    if job.is_queued:
        job.is_queued = 0
        list_remove(&pool.queue, job)


cdef void job_stop(pool_t *pool, job_t *job) noexcept nogil:
    if job.state != RUNNING or job.next >= job.call_count:
        return
    job.is_stopped = 1
    job_unqueue(pool, job)
    job_settle(pool, job)


cdef void job_fail(job_t *job, int error, int64_t file, int64_t offset, int64_t size, int is_sync) noexcept nogil:
    """Keep the first failure."""
    if job.error == 0:
        job.error, job.error_file, job.error_offset, job.error_size = error, file, offset, size
        job.error_sync = is_sync


cdef void work_calls(pool_t *pool, job_t *job, scratch_t *scratch) noexcept nogil:
    """Claim some calls and carry them out. The lock is held, and left meanwhile."""
    cdef int64_t start = job.next, end = job.next, claimed = 0, landed = 0, moved = 0, size = 0, call, count
    cdef int error = 0
    cdef file_t *file
    while end < job.call_count and end - start < BATCH_CALLS and claimed < BATCH_BYTES:
        claimed += job.length[end]
        end += 1
    job.next = end
    if end < job.call_count and not is_serial(job):
        enqueue(pool, job)  # at the end of the queue: jobs take turns
    unlock(pool)
    call = start
    while call < end:
        file = job.files[job.file[call]]
        count = job.first[call + 1] - job.first[call]
        if job.bounce[call]:
            error = move_bounced(scratch, file.descriptor, file.block, job.writes, job.offset[call], job.length[call],
                                 job.pieces + job.first[call], count, &moved)
        else:
            error = move(file.descriptor, job.writes, job.offset[call], job.length[call],
                         job.pieces + job.first[call], <int> count, &moved)
        landed += moved
        if error:
            size = file_size(file.descriptor)
            break
        job.done[call] = 1
        call += 1
    lock(pool)
    job.completed += call - start
    job.landed += landed
    if error:
        job_fail(job, error, job.file[call], job.offset[call] + moved, size, False)


cdef void work_sync(pool_t *pool, job_t *job) noexcept nogil:
    """Claim one file and have it on its device. The lock is held, and left meanwhile."""
    cdef int64_t index = job.next - job.call_count
    cdef int error = 0
    job.next += 1
    if job.next < job.call_count + job.sync_count:
        enqueue(pool, job)
    unlock(pool)
    while fdatasync(job.files[index].descriptor):
        if errno != EINTR:
            error = errno
            break
    lock(pool)
    if error:
        job_fail(job, error, index, 0, 0, True)
    else:
        job.completed += 1


cdef void pool_work(pool_t *pool) noexcept nogil:
    """Carry out jobs until the pool closes."""
    cdef scratch_t scratch
    cdef job_t *job
    memset(&scratch, 0, sizeof(scratch))
    lock(pool)
    while not pool.closing:
        job = list_pop(&pool.queue)
        if job == NULL:
            pthread_cond_wait(&pool.work, &pool.mutex)
            continue
        job.is_queued = 0
        job.busy += 1
        if job.next < job.call_count:
            work_calls(pool, job, &scratch)
        elif job.next < job.call_count + job.sync_count:
            work_sync(pool, job)
        job.busy -= 1
        if job.error:
            job_unqueue(pool, job)
        job_settle(pool, job)
    unlock(pool)
    free(scratch.bounce)


cdef void pool_close(pool_t *pool) noexcept nogil:
    """Start nothing more; what workers are at becomes quiet when they return from it."""
    cdef job_t *job
    lock(pool)
    pool.closing = 1
    while True:
        job = list_pop(&pool.queue)
        if job == NULL:
            break
        job.is_queued = 0
        job_settle(pool, job)
    pthread_cond_broadcast(&pool.work)
    pthread_cond_broadcast(&pool.news)
    unlock(pool)
