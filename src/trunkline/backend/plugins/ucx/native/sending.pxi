# Sends over TCP that fail, of a process that answers a peer.
#
# UCX 1.22 answers what a peer reads, and acknowledges what it writes and adds, where the request arrives. If the kernel
# won't take the answer for want of room, it waits; if the connection has been reset, UCX knows only one way out: it
# aborts the process (ucp_request_try_send). So a peer that dies, or closes, with requests that this process has yet to
# read would end this process: the first answer makes the peer's kernel reset the connection, the second one fails.
#
# What libuct calls to send (ucs_socket_send_nb, of UCX's installed headers) therefore goes through a function of ours,
# which says of every failure that there is no room now. UCX then waits until the connection can be written or read, and
# reading it brings the end of it to light, where UCX can tell it. TCP has no failure that sends see and reads don't.
# Only where reading has closed the descriptor already, which UCX then still sends to (an acknowledgement that was due), is
# the failure told: there is nothing to wait for.
#
# Libuct's entry for that function is changed where the loader put it, in the way in which UCX's own libucm hooks others.

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <link.h>
    #include <sys/mman.h>
    #include <ucs/sys/sock.h>

    #if __SIZEOF_POINTER__ == 8
    #define RELOCATED(info) ELF64_R_SYM(info)
    #else
    #define RELOCATED(info) ELF32_R_SYM(info)
    #endif

    static ucs_status_t send_or_wait(int descriptor, const void *data, size_t *size) {
        ucs_status_t status = ucs_socket_send_nb(descriptor, data, size);
        if (status == UCS_OK || status == UCS_ERR_NO_PROGRESS || descriptor < 0) return status;
        *size = 0;
        return UCS_ERR_NO_PROGRESS;
    }

    /* Set one pointer of a library, which may be in pages that the loader made read-only. */
    static int pointer_set(const struct dl_phdr_info *library, void **pointer, void *value) {
        uintptr_t size = sysconf(_SC_PAGESIZE), page = (uintptr_t) pointer & ~(size - 1);
        int is_sealed = 0;
        for (int i = 0; i < library->dlpi_phnum; i++) {
            const ElfW(Phdr) *part = &library->dlpi_phdr[i];
            uintptr_t start = library->dlpi_addr + part->p_vaddr;
            if (part->p_type == PT_GNU_RELRO) {
                is_sealed |= page >= (start & ~(size - 1)) && page + size <= start + part->p_memsz;
            }
        }
        if (is_sealed && mprotect((void *) page, size, PROT_READ | PROT_WRITE) != 0) return 0;
        __atomic_store_n(pointer, value, __ATOMIC_RELEASE);
        if (is_sealed) mprotect((void *) page, size, PROT_READ);
        return 1;
    }

    static int library_hook(struct dl_phdr_info *library, size_t size, void *hooked) {
        const ElfW(Dyn) *entry = NULL;
        const ElfW(Sym) *symbols = NULL;
        const ElfW(Rela) *calls = NULL;
        const char *names = NULL;
        size_t calls_size = 0;
        if (strstr(library->dlpi_name, "/libuct") == NULL) return 0;
        for (int i = 0; i < library->dlpi_phnum; i++) {
            if (library->dlpi_phdr[i].p_type == PT_DYNAMIC) {
                entry = (const void *) (library->dlpi_addr + library->dlpi_phdr[i].p_vaddr);
            }
        }
        for (; entry != NULL && entry->d_tag != DT_NULL; entry++) {
            if (entry->d_tag == DT_SYMTAB) symbols = (const void *) entry->d_un.d_ptr;
            if (entry->d_tag == DT_STRTAB) names = (const void *) entry->d_un.d_ptr;
            if (entry->d_tag == DT_JMPREL) calls = (const void *) entry->d_un.d_ptr;
            if (entry->d_tag == DT_PLTRELSZ) calls_size = entry->d_un.d_val;
        }
        if (symbols == NULL || names == NULL || calls == NULL) return 0;
        for (size_t i = 0; i < calls_size / sizeof(*calls); i++) {
            if (strcmp(names + symbols[RELOCATED(calls[i].r_info)].st_name, "ucs_socket_send_nb") == 0) {
                *(int *) hooked |= pointer_set(
                    library, (void **) (library->dlpi_addr + calls[i].r_offset), (void *) send_or_wait);
            }
        }
        return 0;
    }

    static int sends_hook(void) {
        int hooked = 0;
        dl_iterate_phdr(library_hook, &hooked);
        return hooked;
    }
    """
    bint sends_hook() noexcept nogil


def let_sends_wait() -> bool:
    return sends_hook()
