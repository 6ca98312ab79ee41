# What all native modules have of `trunkline.backend.contract`: its statuses, and its times in nanoseconds.

from trunkline.backend.contract import Status

cdef tuple _STATUSES = tuple(Status(value) for value in range(-2, 3))
cdef int64_t _NEVER = 1 << 62


cdef inline object status_object(int status):
    return _STATUSES[status + 2]


cdef inline int64_t nanoseconds(double seconds) noexcept:
    return _NEVER if seconds > 4e9 else <int64_t> (seconds * 1e9)
