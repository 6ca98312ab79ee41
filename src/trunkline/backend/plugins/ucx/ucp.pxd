# What we use of UCX's C interface (ucp/api/ucp.h of UCX 1.21 to 1.23). Declarations only.
from libc.stdint cimport uint64_t


cdef extern from "ucs/type/status.h" nogil:
    ctypedef enum ucs_status_t:
        UCS_OK
        UCS_INPROGRESS
        UCS_ERR_NO_MEMORY
        UCS_ERR_INVALID_PARAM
        UCS_ERR_BUSY
        UCS_ERR_CANCELED
        UCS_ERR_NOT_CONNECTED
    ctypedef void *ucs_status_ptr_t
    bint UCS_PTR_IS_ERR(void *pointer)
    ucs_status_t UCS_PTR_RAW_STATUS(void *pointer)
    const char *ucs_status_string(ucs_status_t status)


cdef extern from "ucs/memory/memory_type.h" nogil:
    ctypedef enum ucs_memory_type_t:
        UCS_MEMORY_TYPE_HOST
        UCS_MEMORY_TYPE_CUDA
        UCS_MEMORY_TYPE_LAST


cdef extern from "ucs/type/thread_mode.h" nogil:
    ctypedef enum ucs_thread_mode_t:
        UCS_THREAD_MODE_SERIALIZED


cdef extern from "ucp/api/ucp.h" nogil:
    ctypedef void *ucp_context_h
    ctypedef void *ucp_worker_h
    ctypedef void *ucp_ep_h
    ctypedef void *ucp_mem_h
    ctypedef void *ucp_rkey_h
    ctypedef struct ucp_config_t:
        pass
    ctypedef struct ucp_address_t:
        pass

    enum:
        UCP_PARAM_FIELD_FEATURES
        UCP_PARAM_FIELD_REQUEST_INIT
        UCP_PARAM_FIELD_MT_WORKERS_SHARED
        UCP_PARAM_FIELD_NAME
        UCP_FEATURE_RMA
        UCP_FEATURE_AMO32
        UCP_FEATURE_AMO64
        UCP_FEATURE_AM
        UCP_FEATURE_WAKEUP
        UCP_ATTR_FIELD_REQUEST_SIZE
        UCP_ATTR_FIELD_MEMORY_TYPES
        UCP_WORKER_PARAM_FIELD_THREAD_MODE
        UCP_WORKER_ATTR_FIELD_ADDRESS
        UCP_MEM_MAP_PARAM_FIELD_ADDRESS
        UCP_MEM_MAP_PARAM_FIELD_LENGTH
        UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE
        UCP_AM_HANDLER_PARAM_FIELD_ID
        UCP_AM_HANDLER_PARAM_FIELD_FLAGS
        UCP_AM_HANDLER_PARAM_FIELD_CB
        UCP_AM_HANDLER_PARAM_FIELD_ARG
        UCP_AM_FLAG_WHOLE_MSG
        UCP_AM_SEND_FLAG_EAGER
        UCP_AM_RECV_ATTR_FLAG_RNDV
        UCP_EP_PARAM_FIELD_REMOTE_ADDRESS
        UCP_EP_PARAM_FIELD_ERR_HANDLER
        UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE
        UCP_EP_CLOSE_FLAG_FORCE
        UCP_EP_ATTR_FIELD_TRANSPORTS
        UCP_OP_ATTR_FIELD_CALLBACK
        UCP_OP_ATTR_FIELD_USER_DATA
        UCP_OP_ATTR_FIELD_FLAGS
        UCP_OP_ATTR_FIELD_MEMH
        UCP_OP_ATTR_FLAG_MULTI_SEND

    ctypedef enum ucp_err_handling_mode_t:
        UCP_ERR_HANDLING_MODE_PEER

    ctypedef void (*ucp_request_init_callback_t)(void *request) noexcept nogil
    ctypedef struct ucp_params_t:
        uint64_t field_mask
        uint64_t features
        ucp_request_init_callback_t request_init
        int mt_workers_shared
        const char *name
    ctypedef struct ucp_context_attr_t:
        uint64_t field_mask
        size_t request_size
        uint64_t memory_types
    ctypedef struct ucp_worker_params_t:
        uint64_t field_mask
        ucs_thread_mode_t thread_mode
    ctypedef struct ucp_worker_attr_t:
        uint64_t field_mask
        ucp_address_t *address
        size_t address_length
    ctypedef struct ucp_mem_map_params_t:
        uint64_t field_mask
        void *address
        size_t length
        ucs_memory_type_t memory_type
    ctypedef struct ucp_am_recv_param_t:
        uint64_t recv_attr
    ctypedef ucs_status_t (*ucp_am_recv_callback_t)(
        void *arg, const void *header, size_t header_length, void *data, size_t length,
        const ucp_am_recv_param_t *param) noexcept nogil
    ctypedef struct ucp_am_handler_param_t:
        uint64_t field_mask
        unsigned id
        unsigned flags
        ucp_am_recv_callback_t cb
        void *arg
    ctypedef void (*ucp_err_handler_cb_t)(void *arg, ucp_ep_h ep, ucs_status_t status) noexcept nogil
    ctypedef struct ucp_err_handler_t:
        ucp_err_handler_cb_t cb
        void *arg
    ctypedef struct ucp_ep_params_t:
        uint64_t field_mask
        const ucp_address_t *address
        ucp_err_handling_mode_t err_mode
        ucp_err_handler_t err_handler
    ctypedef struct ucp_transport_entry_t:
        const char *transport_name
        const char *device_name
    ctypedef struct ucp_transports_t:
        ucp_transport_entry_t *entries
        unsigned num_entries
        size_t entry_size
    ctypedef struct ucp_ep_attr_t:
        uint64_t field_mask
        ucp_transports_t transports
    ctypedef void (*ucp_send_nbx_callback_t)(void *request, ucs_status_t status, void *user_data) noexcept nogil
    ctypedef union ucp_request_callback_t:
        ucp_send_nbx_callback_t send
    ctypedef struct ucp_request_param_t:
        unsigned op_attr_mask
        unsigned flags
        ucp_request_callback_t cb
        void *user_data
        ucp_mem_h memh

    void ucp_get_version(unsigned *major, unsigned *minor, unsigned *release)
    ucs_status_t ucp_config_read(const char *prefix, const char *file, ucp_config_t **config)
    ucs_status_t ucp_config_modify(ucp_config_t *config, const char *name, const char *value)
    void ucp_config_release(ucp_config_t *config)
    ucs_status_t ucp_init(const ucp_params_t *params, const ucp_config_t *config, ucp_context_h *context)
    ucs_status_t ucp_context_query(ucp_context_h context, ucp_context_attr_t *attributes)
    void ucp_cleanup(ucp_context_h context)
    ucs_status_t ucp_worker_create(ucp_context_h context, const ucp_worker_params_t *params, ucp_worker_h *worker)
    void ucp_worker_destroy(ucp_worker_h worker)
    ucs_status_t ucp_worker_query(ucp_worker_h worker, ucp_worker_attr_t *attributes)
    void ucp_worker_release_address(ucp_worker_h worker, ucp_address_t *address)
    ucs_status_t ucp_worker_get_efd(ucp_worker_h worker, int *descriptor)
    ucs_status_t ucp_worker_arm(ucp_worker_h worker)
    unsigned ucp_worker_progress(ucp_worker_h worker)
    ucs_status_t ucp_worker_set_am_recv_handler(ucp_worker_h worker, const ucp_am_handler_param_t *param)
    ucs_status_t ucp_mem_map(ucp_context_h context, const ucp_mem_map_params_t *params, ucp_mem_h *memory)
    ucs_status_t ucp_mem_unmap(ucp_context_h context, ucp_mem_h memory)
    ucs_status_t ucp_rkey_pack(ucp_context_h context, ucp_mem_h memory, void **buffer, size_t *size)
    void ucp_rkey_buffer_release(void *buffer)
    ucs_status_t ucp_ep_create(ucp_worker_h worker, const ucp_ep_params_t *params, ucp_ep_h *ep)
    ucs_status_ptr_t ucp_ep_close_nbx(ucp_ep_h ep, const ucp_request_param_t *param)
    ucs_status_ptr_t ucp_ep_flush_nbx(ucp_ep_h ep, const ucp_request_param_t *param)
    ucs_status_t ucp_ep_query(ucp_ep_h ep, ucp_ep_attr_t *attributes)
    ucs_status_t ucp_ep_rkey_unpack(ucp_ep_h ep, const void *buffer, ucp_rkey_h *key)
    void ucp_rkey_destroy(ucp_rkey_h key)
    ucs_status_ptr_t ucp_put_nbx(
        ucp_ep_h ep, const void *buffer, size_t count, uint64_t remote, ucp_rkey_h key,
        const ucp_request_param_t *param)
    ucs_status_ptr_t ucp_get_nbx(
        ucp_ep_h ep, void *buffer, size_t count, uint64_t remote, ucp_rkey_h key,
        const ucp_request_param_t *param)
    ucs_status_ptr_t ucp_am_send_nbx(
        ucp_ep_h ep, unsigned id, const void *header, size_t header_length, const void *buffer, size_t count,
        const ucp_request_param_t *param)
    void ucp_request_free(void *request)
