# One call's bytes between memory and a file: short transfers go on, interrupted ones begin again.

cdef enum:
    END_OF_FILE = -1  # instead of an errno: the file ended before the range did
    NOTHING_TAKEN = -2  # a write was answered with 0 bytes
    ALIGNMENT = 4096  # of bounce buffers, at least


cdef struct scratch_t:
    # What a worker keeps from call to call.
    char *bounce
    size_t size


cdef int move(int descriptor, bint writes, int64_t offset, int64_t length, const iovec *pieces, int count,
              int64_t *moved) noexcept nogil:
    """Move all of a run by way of its pieces; return 0, an errno or END_OF_FILE, and how far it came."""
    cdef iovec left[IOV_MAX]
    cdef int at = 0
    cdef ssize_t got
    memcpy(left, pieces, count * sizeof(iovec))
    moved[0] = 0
    while moved[0] < length:
        if writes:
            got = pwritev(descriptor, left + at, count - at, offset + moved[0])
        else:
            got = preadv(descriptor, left + at, count - at, offset + moved[0])
        if got < 0:
            if errno == EINTR:
                continue
            return errno
        if got == 0:
            return NOTHING_TAKEN if writes else END_OF_FILE
        moved[0] += got
        while at < count and <size_t> got >= left[at].iov_len:
            got -= left[at].iov_len
            at += 1
        if got:
            left[at].iov_base = <char *> left[at].iov_base + got
            left[at].iov_len -= got
    return 0


cdef void gather(char *buffer, bint scatters, int64_t length, const iovec *pieces, int64_t count) noexcept nogil:
    """Copy the first ``length`` bytes of the pieces into a buffer, or out of it to them."""
    cdef int64_t piece, size
    for piece in range(count):
        size = min(length, <int64_t> pieces[piece].iov_len)
        if scatters:
            memcpy(pieces[piece].iov_base, buffer, size)
        else:
            memcpy(buffer, pieces[piece].iov_base, size)
        buffer += size
        length -= size


cdef int move_bounced(scratch_t *scratch, int descriptor, uint32_t block, bint writes, int64_t offset, int64_t length,
                      const iovec *pieces, int64_t count, int64_t *moved) noexcept nogil:
    """Like ``move``, through an aligned buffer: what is read may begin and end within a block, what is written not."""
    cdef int64_t start = offset - offset % block
    cdef int64_t end = (offset + length + block - 1) // block * block
    cdef int64_t at = 0, wanted = offset - start + length
    cdef ssize_t got
    cdef int error = 0
    moved[0] = 0
    if scratch.size < <size_t> (end - start):
        free(scratch.bounce)
        scratch.bounce = NULL
        scratch.size = 0
        error = posix_memalign(<void **> &scratch.bounce, max(block, <uint32_t> ALIGNMENT), end - start)
        if error:
            scratch.bounce = NULL
            return error
        scratch.size = end - start
    if writes:
        gather(scratch.bounce, False, length, pieces, count)
    while at < wanted:
        if writes:
            got = pwrite(descriptor, scratch.bounce + at, end - start - at, start + at)
        else:
            got = pread(descriptor, scratch.bounce + at, end - start - at, start + at)
        if got < 0:
            if errno == EINTR:
                continue
            error = errno
            break
        if got == 0:
            error = NOTHING_TAKEN if writes else END_OF_FILE
            break
        at += got
        if not writes and at < wanted and at % block:  # a file's last block is shorter, and nothing follows it
            error = END_OF_FILE
            break
    moved[0] = max(0, min(at, wanted) - (offset - start))
    if not writes:
        gather(scratch.bounce + (offset - start), True, moved[0], pieces, count)
    return error
