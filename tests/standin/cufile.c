/* A stand-in for libcufile.so and libcuda.so.1: cuFile's public signatures over pread and pwrite, "GPU memory" being
 * plain memory. Tests have it record calls, fail, move fewer bytes, or hold its I/O, through the standin_ functions. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct { int err, cu_err; } CUfileError_t;
typedef struct { int type; union { int fd; void *handle; } handle; const void *fs_ops; } CUfileDescr_t;
typedef struct {
    int mode;
    union { struct { void *devPtr_base; off_t file_offset; off_t devPtr_offset; size_t size; } batch; } u;
    void *fh;
    int opcode;
    void *cookie;
} CUfileIOParams_t;
typedef struct { void *cookie; int status; size_t ret; } CUfileIOEvents_t;
enum { CANCELED = 8, COMPLETE = 16, FAILED = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int opened, files, buffers, batches, contexts; /* alive */
static int recording, holding, held;
static size_t most; /* bytes of one I/O; 0: any */
static char record[1 << 20];
static size_t record_used;
static struct { char call[48]; int after, code, times; } fault;
#define ROOM 4096
static struct { uintptr_t base; size_t size; } pinned[ROOM];
static __thread void *stack[16];
static __thread int depth;

static void note(const char *format, ...) { /* under the lock */
    va_list arguments;
    if (!recording || record_used > sizeof(record) - 512) return;
    va_start(arguments, format);
    record_used += vsnprintf(record + record_used, 500, format, arguments);
    va_end(arguments);
    record_used += snprintf(record + record_used, 12, "\n");
}

static int faulty(const char *call) { /* under the lock */
    if (strcmp(fault.call, call) || !fault.times) return 0;
    if (fault.after > 0) { fault.after--; return 0; }
    fault.times--;
    return fault.code;
}

static CUfileError_t answer(const char *call) {
    CUfileError_t error = {faulty(call), 0};
    if (error.err == 5011) error.cu_err = 2;
    return error;
}

/* What the tests use. */
void standin_reset(void) {
    pthread_mutex_lock(&lock);
    recording = holding = 0;
    most = record_used = 0;
    record[0] = 0;
    memset(&fault, 0, sizeof(fault));
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}
void standin_record(int on) { recording = on; }
const char *standin_calls(void) { return record; }
void standin_fail(const char *call, int after, int code, int times) {
    pthread_mutex_lock(&lock);
    snprintf(fault.call, sizeof(fault.call), "%s", call);
    fault.after = after; fault.code = code; fault.times = times;
    pthread_mutex_unlock(&lock);
}
void standin_shorten(size_t bytes) { most = bytes; }
void standin_hold(int on) {
    pthread_mutex_lock(&lock);
    holding = on;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}
int standin_held(void) { return held; }
void standin_alive(int *counts) {
    pthread_mutex_lock(&lock);
    counts[0] = opened; counts[1] = files; counts[2] = buffers; counts[3] = batches; counts[4] = contexts;
    pthread_mutex_unlock(&lock);
}

/* CUDA's driver. */
int cuInit(unsigned flags) { (void)flags; return faulty("cuInit"); }
int cuDeviceGet(int *device, int number) {
    if (number > 7) return 101;
    *device = number + 100;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)(uintptr_t)(device - 100 + 1);
    __atomic_add_fetch(&contexts, 1, __ATOMIC_SEQ_CST);
    return faulty("cuDevicePrimaryCtxRetain");
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    (void)device;
    __atomic_sub_fetch(&contexts, 1, __ATOMIC_SEQ_CST);
    return 0;
}
int cuCtxPushCurrent_v2(void *context) { stack[depth++] = context; return 0; }
int cuCtxPopCurrent_v2(void **context) { *context = stack[--depth]; return 0; }
int cuGetErrorName(int status, const char **name) {
    *name = status == 100 ? "CUDA_ERROR_NO_DEVICE" : status == 101 ? "CUDA_ERROR_INVALID_DEVICE" : "CUDA_ERROR_STANDIN";
    return 0;
}
int cuPointerGetAttribute(void *value, int attribute, uint64_t address) { /* GPU n's memory is at n << 40 */
    if (attribute != 9 || !address) return 1;
    *(int *)value = (int)(address >> 40);
    return 0;
}
static int gpu(void) { return depth ? (int)(uintptr_t)stack[depth - 1] - 1 : -1; }

/* cuFile. */
CUfileError_t cuFileDriverOpen(void) {
    pthread_mutex_lock(&lock);
    CUfileError_t error = answer("cuFileDriverOpen");
    if (!error.err) opened++;
    note("cuFileDriverOpen");
    pthread_mutex_unlock(&lock);
    return error;
}
CUfileError_t cuFileDriverClose_v2(void) {
    pthread_mutex_lock(&lock);
    CUfileError_t error = answer("cuFileDriverClose");
    opened--;
    note("cuFileDriverClose");
    pthread_mutex_unlock(&lock);
    return error;
}
CUfileError_t cuFileDriverClose(void) { return cuFileDriverClose_v2(); }

CUfileError_t cuFileHandleRegister(void **handle, CUfileDescr_t *descr) {
    char path[64];
    int flags = fcntl(descr->handle.fd, F_GETFL);
    pthread_mutex_lock(&lock);
    CUfileError_t error = answer("cuFileHandleRegister");
    if (descr->type != 1 || descr->fs_ops || flags < 0) error.err = 5022;
    if (!error.err) { /* a descriptor of its own, without O_DIRECT: the real one takes care of what is not aligned */
        int *file = malloc(sizeof(int));
        snprintf(path, sizeof(path), "/proc/self/fd/%d", descr->handle.fd);
        *file = open(path, (flags & O_ACCMODE) | O_CLOEXEC);
        *handle = file;
        files++;
    }
    note("cuFileHandleRegister fd=%d direct=%d", descr->handle.fd, !!(flags & O_DIRECT));
    pthread_mutex_unlock(&lock);
    return error;
}
void cuFileHandleDeregister(void *handle) {
    pthread_mutex_lock(&lock);
    files--;
    close(*(int *)handle);
    free(handle);
    note("cuFileHandleDeregister");
    pthread_mutex_unlock(&lock);
}
static int find(uintptr_t base) {
    for (int i = 0; i < ROOM; i++) if (pinned[i].base == base) return i;
    return -1;
}
CUfileError_t cuFileBufRegister(const void *base, size_t size, int flags) {
    pthread_mutex_lock(&lock);
    CUfileError_t error = answer("cuFileBufRegister");
    int slot = find(0);
    if (!error.err && find((uintptr_t)base) >= 0) error.err = 5023;
    if (!error.err && slot < 0) error.err = 5036;
    if (!error.err) { pinned[slot].base = (uintptr_t)base; pinned[slot].size = size; buffers++; }
    note("cuFileBufRegister base=%p size=%zu flags=%d gpu=%d", base, size, flags, gpu());
    pthread_mutex_unlock(&lock);
    return error;
}
CUfileError_t cuFileBufDeregister(const void *base) {
    pthread_mutex_lock(&lock);
    CUfileError_t error = answer("cuFileBufDeregister");
    int slot = find((uintptr_t)base);
    if (!error.err && slot < 0) error.err = 5022;
    if (slot >= 0) { pinned[slot].base = 0; buffers--; }
    note("cuFileBufDeregister base=%p gpu=%d", base, gpu());
    pthread_mutex_unlock(&lock);
    return error;
}

/* Bytes moved, a negative errno, or a negative CUfileOpError; stops waiting early if *cancelled becomes true. */
static ssize_t move(int is_read, void *handle, char *base, size_t size, off_t at, off_t into, volatile int *cancelled) {
    const char *call = is_read ? "cuFileRead" : "cuFileWrite";
    pthread_mutex_lock(&lock);
    note("%s base=%p size=%zu at=%ld into=%ld pinned=%d gpu=%d", call, base, size, (long)at, (long)into,
         find((uintptr_t)base) >= 0, gpu());
    int code = faulty(call);
    if (most && size > most) size = most;
    held++;
    pthread_cond_broadcast(&changed);
    while (holding && !(cancelled && *cancelled)) pthread_cond_wait(&changed, &lock);
    held--;
    pthread_mutex_unlock(&lock);
    if (cancelled && *cancelled) return 0;
    if (code) return -code;
    ssize_t moved = is_read ? pread(*(int *)handle, base + into, size, at) : pwrite(*(int *)handle, base + into, size, at);
    return moved < 0 ? -errno : moved;
}
static ssize_t plain(int is_read, void *handle, void *base, size_t size, off_t at, off_t into) {
    ssize_t moved = move(is_read, handle, base, size, at, into, NULL);
    if (moved < 0 && moved > -5000) { errno = -moved; return -1; }
    return moved;
}
ssize_t cuFileRead(void *handle, void *base, size_t size, off_t at, off_t into) {
    return plain(1, handle, base, size, at, into);
}
ssize_t cuFileWrite(void *handle, const void *base, size_t size, off_t at, off_t into) {
    return plain(0, handle, (void *)base, size, at, into);
}

typedef struct {
    unsigned limit, count, ended, told;
    CUfileIOParams_t *params; /* the caller's, as with the real one */
    CUfileIOEvents_t *events;
    volatile int cancelled;
    int is_running;
    void *context; /* of who submitted it */
    pthread_t thread;
} batch_t;

static void *carry(void *argument) {
    batch_t *batch = argument;
    if (batch->context) stack[depth++] = batch->context;
    for (unsigned i = 0; i < batch->count; i++) {
        CUfileIOParams_t *p = &batch->params[i];
        CUfileIOEvents_t event = {p->cookie, CANCELED, 0};
        if (!batch->cancelled) {
            ssize_t moved = move(p->opcode == 0, p->fh, p->u.batch.devPtr_base, p->u.batch.size, p->u.batch.file_offset,
                                 p->u.batch.devPtr_offset, &batch->cancelled);
            if (moved || !batch->cancelled) {
                event.status = moved < 0 ? FAILED : COMPLETE;
                event.ret = (size_t)moved;
            }
        }
        pthread_mutex_lock(&lock);
        batch->events[batch->ended++] = event;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}
CUfileError_t cuFileBatchIOSetUp(void **handle, unsigned limit) {
    pthread_mutex_lock(&lock);
    CUfileError_t error = answer("cuFileBatchIOSetUp");
    if (limit > 128) error.err = 5022;
    if (!error.err) {
        batch_t *batch = calloc(1, sizeof(batch_t));
        batch->limit = limit;
        batch->events = calloc(limit, sizeof(CUfileIOEvents_t));
        *handle = batch;
        batches++;
    }
    note("cuFileBatchIOSetUp nr=%u", limit);
    pthread_mutex_unlock(&lock);
    return error;
}
static void join(batch_t *batch) {
    if (batch->is_running) pthread_join(batch->thread, NULL);
    batch->is_running = 0;
}
CUfileError_t cuFileBatchIOSubmit(void *handle, unsigned count, CUfileIOParams_t *params, unsigned flags) {
    batch_t *batch = handle;
    join(batch);
    pthread_mutex_lock(&lock);
    CUfileError_t error = answer("cuFileBatchIOSubmit");
    for (unsigned i = 0; i < count; i++) if (params[i].mode != 1) error.err = 5022;
    if (count > batch->limit) error.err = 5037;
    note("cuFileBatchIOSubmit nr=%u flags=%u gpu=%d", count, flags, gpu());
    pthread_mutex_unlock(&lock);
    if (error.err) return error;
    batch->count = count; batch->ended = batch->told = 0; batch->params = params; batch->cancelled = 0;
    batch->is_running = 1;
    batch->context = depth ? stack[depth - 1] : NULL;
    pthread_create(&batch->thread, NULL, carry, batch);
    return error;
}
CUfileError_t cuFileBatchIOGetStatus(void *handle, unsigned least, unsigned *nr, CUfileIOEvents_t *events,
                                     struct timespec *timeout) {
    batch_t *batch = handle;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout ? timeout->tv_sec : 3600;
    pthread_mutex_lock(&lock);
    CUfileError_t error = answer("cuFileBatchIOGetStatus");
    if (least > *nr) error.err = 5022;
    while (!error.err && batch->ended - batch->told < least)
        if (pthread_cond_timedwait(&changed, &lock, &until)) break;
    unsigned count = batch->ended - batch->told;
    if (count > *nr) count = *nr;
    if (!error.err) {
        memcpy(events, batch->events + batch->told, count * sizeof(*events));
        batch->told += count;
        *nr = count;
    }
    pthread_mutex_unlock(&lock);
    return error;
}
CUfileError_t cuFileBatchIOCancel(void *handle) {
    batch_t *batch = handle;
    pthread_mutex_lock(&lock);
    CUfileError_t error = answer("cuFileBatchIOCancel");
    if (!error.err) batch->cancelled = 1;
    note("cuFileBatchIOCancel");
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return error;
}
void cuFileBatchIODestroy(void *handle) {
    batch_t *batch = handle;
    join(batch);
    pthread_mutex_lock(&lock);
    batches--;
    note("cuFileBatchIODestroy");
    pthread_mutex_unlock(&lock);
    free(batch->events);
    free(batch);
}
