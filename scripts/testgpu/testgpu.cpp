// A GPU for tests on machines without one: a backend of ggml, as CUDA's is one, whose devices say that they are GPUs
// with memory of their own, and have the CPU's backend compute. It shows what the engine does with devices: where
// weights and caches go, which devices are left alone, what happens when memory ends or a device is lost. Of kernels,
// asynchronous copies and a driver it says nothing. CUDA's backend never reports a computation that failed: each of its
// errors is `abort` below, memory that ends in a computation included.
//
// Only this library reads these variables. The number of devices is read once, when it is loaded:
//
//   TESTGPU_DEVICES  how many devices there are; 1
//   TESTGPU_MEMORY   MiB of each, or a list such as 64,8; 1024
//   TESTGPU_THREADS  threads that compute; 1
//   TESTGPU_FAULTS   a file that is read again at every use of a device, so that a test can make faults come and go;
//                    where it is there it holds any of these words:
//                      lost       nothing can be computed or allocated, and a library that is loaded finds no device
//                      gone N     the device at this place of the list, from 0, is lost, and a library that is loaded
//                                 doesn't find it
//                      reset      the devices are lost to this process, which removes the file; the next one finds them
//                      abort      the next computation or copy to a device logs an error, removes the file and aborts,
//                                 as CUDA's backend does
//                      busy N     the device at this place can't be opened, as a card that another process has for
//                                 itself; who tries aborts
//                      full       no memory can be allocated
//                      taken MIB  that much memory of each device belongs to somebody else
//                      free MIB   so much is free, whatever the devices have
//                      slow MS    each computation takes that much longer
//                      nowaits    a computation fails in which CUDA's backend would have the host wait for the device
#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml-impl.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

// ---- what the environment says -------------------------------------------------------------------------------------

static const size_t MIB = 1024 * 1024;

static std::string variable(const char * name) {
    const char * value = getenv(name);
    return value == nullptr ? "" : value;
}

static size_t number(const std::string & text, size_t otherwise) {
    return text.empty() ? otherwise : (size_t) strtoull(text.c_str(), nullptr, 10);
}

struct faults {
    bool   lost = false, reset = false, aborts = false, full = false, no_waits = false;
    size_t taken_mib = 0, slow_ms = 0, free_mib = SIZE_MAX;
    size_t gone = SIZE_MAX, busy = SIZE_MAX; // places of devices
};

static faults read_faults() {
    faults             found;
    const std::string  path = variable("TESTGPU_FAULTS");
    std::ifstream      file;
    std::string        word;
    if (!path.empty()) file.open(path);
    while (file >> word) {
        if (word == "lost") found.lost = true;
        if (word == "reset") found.reset = true;
        if (word == "abort") found.aborts = true;
        if (word == "full") found.full = true;
        if (word == "nowaits") found.no_waits = true;
        if (word == "gone") file >> found.gone;
        if (word == "busy") file >> found.busy;
        if (word == "free") file >> found.free_mib;
        if (word == "taken") file >> found.taken_mib;
        if (word == "slow") file >> found.slow_ms;
    }
    return found;
}

static std::atomic<bool> was_reset{ false };

struct device_state {
    size_t                   place; // in the list
    std::string              name, bus;
    std::atomic<size_t>      used{ 0 };
    ggml_backend_buffer_type buffers;
};

static device_state * state_of(ggml_backend_dev_t dev) { return (device_state *) dev->context; }

// What is wrong at the use of a device. Only a computation meets a reset.
static faults faults_now(ggml_backend_dev_t dev) {
    faults now = read_faults();
    now.lost   = now.lost || was_reset || now.gone == state_of(dev)->place;
    return now;
}

static void remove_faults() { std::remove(variable("TESTGPU_FAULTS").c_str()); }

static void abort_if_told(ggml_backend_dev_t dev, const faults & now) {
    if (!now.aborts) return;
    remove_faults();
    GGML_LOG_ERROR("testgpu error: an illegal memory access was encountered\n");
    GGML_LOG_ERROR("  current device: %s\n", state_of(dev)->name.c_str());
    GGML_ABORT("testgpu error");
}

static faults faults_at_computation(ggml_backend_dev_t dev) {
    faults now = faults_now(dev);
    abort_if_told(dev, now);
    if (!now.reset) return now;
    remove_faults();
    was_reset = now.lost = true;
    return now;
}

// As CUDA has it: each thread has a device, which is the first until it uses another, and that one is opened by what
// isn't about a certain device: when memory is freed, or memory of the host is pinned, as each context does.
static thread_local size_t place_of_thread = 0;

static void open_device_of_thread() {
    if (read_faults().busy != place_of_thread) return;
    GGML_LOG_ERROR("testgpu error: device %zu is busy\n", place_of_thread);
    GGML_ABORT("testgpu error");
}

static void use(ggml_backend_dev_t dev) {
    place_of_thread = state_of(dev)->place;
    open_device_of_thread();
}

// ---- devices -------------------------------------------------------------------------------------------------------

// The last number of the list counts for the devices after it, too.
static size_t total_memory(ggml_backend_dev_t dev) {
    std::stringstream list(variable("TESTGPU_MEMORY"));
    std::string       one;
    size_t            mib = 1024;
    for (size_t i = 0; i <= state_of(dev)->place && std::getline(list, one, ','); i++) mib = number(one, mib);
    return mib * MIB;
}

static size_t free_memory(ggml_backend_dev_t dev) {
    const faults now   = faults_now(dev);
    const size_t total = total_memory(dev);
    const size_t gone  = state_of(dev)->used + now.taken_mib * MIB;
    if (now.free_mib != SIZE_MAX) return now.free_mib * MIB;
    return total - std::min(gone, total);
}

static const char * device_name(ggml_backend_dev_t dev) { return state_of(dev)->name.c_str(); }
static const char * device_description(ggml_backend_dev_t) { return "a GPU that the CPU plays"; }
static enum ggml_backend_dev_type device_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; }

static void device_memory(ggml_backend_dev_t dev, size_t * free, size_t * total) {
    use(dev);
    *free  = free_memory(dev);
    *total = total_memory(dev);
}

static void device_props(ggml_backend_dev_t dev, struct ggml_backend_dev_props * props) {
    *props             = {};
    props->name        = device_name(dev);
    props->description = device_description(dev);
    props->type        = device_type(dev);
    props->device_id   = state_of(dev)->bus.c_str();
    device_memory(dev, &props->memory_free, &props->memory_total);
}

// ---- memory --------------------------------------------------------------------------------------------------------

static const size_t ALIGNMENT = 128;

static void   buffer_free(ggml_backend_buffer_t buffer) {
    open_device_of_thread();
    state_of(buffer->buft->device)->used -= buffer->size;
    ::operator delete(buffer->context, std::align_val_t(ALIGNMENT));
}
static void * buffer_base(ggml_backend_buffer_t buffer) { return buffer->context; }
static void   buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) { memset(buffer->context, value, buffer->size); }

static void tensor_memset(ggml_backend_buffer_t, ggml_tensor * t, uint8_t value, size_t offset, size_t size) {
    memset((char *) t->data + offset, value, size);
}
static void tensor_set(ggml_backend_buffer_t buffer, ggml_tensor * t, const void * data, size_t offset, size_t size) {
    use(buffer->buft->device);
    abort_if_told(buffer->buft->device, read_faults());
    memcpy((char *) t->data + offset, data, size);
}
static void tensor_get(ggml_backend_buffer_t, const ggml_tensor * t, void * data, size_t offset, size_t size) {
    memcpy(data, (const char *) t->data + offset, size);
}

static const char * buffers_name(ggml_backend_buffer_type_t type) { return device_name(type->device); }
static size_t       buffers_alignment(ggml_backend_buffer_type_t) { return ALIGNMENT; }

static ggml_backend_buffer_t buffers_allocate(ggml_backend_buffer_type_t type, size_t size) {
    use(type->device);
    const faults now    = faults_now(type->device);
    void *       memory = nullptr;
    if (!now.lost && !now.full && size <= free_memory(type->device)) {
        memory = ::operator new(std::max<size_t>(size, 1), std::align_val_t(ALIGNMENT), std::nothrow);
    }
    if (memory == nullptr) {
        GGML_LOG_ERROR("testgpu: allocating %.2f MiB on %s: %s\n", size / (double) MIB, device_name(type->device),
                       now.lost ? "the device is lost" : "out of memory");
        return nullptr;
    }
    ggml_backend_buffer_i calls = {};
    calls.free_buffer   = buffer_free;
    calls.get_base      = buffer_base;
    calls.memset_tensor = tensor_memset;
    calls.set_tensor    = tensor_set;
    calls.get_tensor    = tensor_get;
    calls.clear         = buffer_clear;
    state_of(type->device)->used += size;
    return ggml_backend_buffer_init(type, calls, memory, size);
}

static ggml_backend_buffer_type_t device_buffers(ggml_backend_dev_t dev) { return &state_of(dev)->buffers; }

// ---- computing -----------------------------------------------------------------------------------------------------

// The CPU's backend is loaded after this one.
static ggml_backend_dev_t cpu() {
    static ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    return dev;
}

static ggml_backend_t cpu_backend(ggml_backend_t backend) { return (ggml_backend_t) backend->context; }

static const char * backend_name(ggml_backend_t backend) { return device_name(backend->device); }

static void backend_free(ggml_backend_t backend) {
    ggml_backend_free(cpu_backend(backend));
    delete backend;
}

// Whether there is a product for which CUDA's backend may read ids on the host: of matrices that aren't quantised.
static bool waits(ggml_cgraph * graph) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor * node = ggml_graph_node(graph, i);
        if (node->op == GGML_OP_MUL_MAT_ID && !ggml_is_quantized(node->src[0]->type)) return true;
    }
    return false;
}

static enum ggml_status backend_compute(ggml_backend_t backend, ggml_cgraph * graph) {
    use(backend->device);
    const faults now = faults_at_computation(backend->device);
    if (now.lost) {
        GGML_LOG_ERROR("testgpu: computing on %s: the device is lost\n", backend_name(backend));
        return GGML_STATUS_FAILED;
    }
    if (now.no_waits && waits(graph)) {
        GGML_LOG_ERROR("testgpu: computing on %s: CUDA's backend would wait for the device\n", backend_name(backend));
        return GGML_STATUS_FAILED;
    }
    if (now.slow_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(now.slow_ms));
    return ggml_backend_graph_compute(cpu_backend(backend), graph);
}

static ggml_backend_t device_backend(ggml_backend_dev_t dev, const char *) {
    open_device_of_thread();
    static ggml_guid guid = { 't', 'e', 's', 't', 'g', 'p', 'u' };
    ggml_backend_t   host = ggml_backend_dev_init(cpu(), nullptr);
    if (host == nullptr) return nullptr;
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(cpu());
    auto set_threads = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    if (set_threads != nullptr) set_threads(host, (int) number(variable("TESTGPU_THREADS"), 1));
    ggml_backend_i calls = {};
    calls.get_name       = backend_name;
    calls.free           = backend_free;
    calls.graph_compute  = backend_compute;
    return new ggml_backend{ &guid, calls, dev, host };
}

static bool device_supports(ggml_backend_dev_t, const ggml_tensor * op) {
    return ggml_backend_dev_supports_op(cpu(), op);
}
static bool device_reads(ggml_backend_dev_t dev, ggml_backend_buffer_type_t type) { return type == device_buffers(dev); }

// As CUDA's: large products go to the device even if their weights lie in the host's memory.
static bool device_wants(ggml_backend_dev_t, const ggml_tensor * op) {
    return op->op == GGML_OP_MUL_MAT && op->ne[1] >= 32;
}

// ---- registration --------------------------------------------------------------------------------------------------

static ggml_backend_reg registration;

static ggml_backend_dev_t new_device(size_t place) {
    auto * state = new device_state;
    auto * dev   = new ggml_backend_device{};
    state->place = place;
    state->name  = "TestGPU" + std::to_string(place);
    state->bus   = "0000:" + std::string(place < 9 ? "0" : "") + std::to_string(place + 1) + ":00.0";
    state->buffers.iface  = { buffers_name, buffers_allocate, buffers_alignment, nullptr, nullptr, nullptr };
    state->buffers.device = dev;
    dev->reg              = &registration;
    dev->context          = state;
    dev->iface.get_name        = device_name;
    dev->iface.get_description = device_description;
    dev->iface.get_memory      = device_memory;
    dev->iface.get_type        = device_type;
    dev->iface.get_props       = device_props;
    dev->iface.init_backend    = device_backend;
    dev->iface.get_buffer_type = device_buffers;
    dev->iface.supports_op     = device_supports;
    dev->iface.supports_buft   = device_reads;
    dev->iface.offload_op      = device_wants;
    return dev;
}

// They live as long as the process, as a driver's do.
static std::vector<ggml_backend_dev_t> make_devices() {
    std::vector<ggml_backend_dev_t> list;
    const faults now = read_faults();
    if (now.lost) {
        GGML_LOG_ERROR("testgpu: the device is lost\n");
        return list;
    }
    for (size_t i = 0; i < number(variable("TESTGPU_DEVICES"), 1); i++) {
        if (i != now.gone) list.push_back(new_device(i));
    }
    return list;
}

static const std::vector<ggml_backend_dev_t> & devices() {
    static const std::vector<ggml_backend_dev_t> list = make_devices();
    return list;
}

static const char *       registry_name(ggml_backend_reg_t) { return "TestGPU"; }
static size_t             registry_count(ggml_backend_reg_t) { return devices().size(); }
static ggml_backend_dev_t registry_device(ggml_backend_reg_t, size_t i) { return devices()[i]; }

extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
    registration = { GGML_BACKEND_API_VERSION, { registry_name, registry_count, registry_device, nullptr }, nullptr };
    devices();
    return &registration;
}
