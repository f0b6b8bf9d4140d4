//go:build llama

#include "shim.h"

#include "ggml-backend.h"
#include "ggml-row-invariant.h"
#include "llama-adapter.h"
#include "llama-context.h"
#include "llama-ext.h"
#include "llama-model.h"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "build-info.h"

extern "C" void tdmGoLog(int32_t level, char * text, int32_t len);
extern "C" bool tdmGoProgress(float ratio, uintptr_t handle);

// ---- log ------------------------------------------------------------------------------------------------------------

static const size_t LINE_MAX_BYTES    = 8192;
static const size_t CAPTURE_MAX_BYTES = 4096;

static std::atomic<int32_t> log_min_level{3};

// A line grows over several calls (level CONT), all on one thread.
struct log_state {
    std::string line;
    int32_t     level     = 0;
    bool        capturing = false;
    std::string errors, warnings; // while capturing; some libraries warn of each tensor before the error
    std::vector<std::pair<int32_t, std::string>> captured; // the same with their levels
};
static thread_local log_state thread_log;

static void log_write(int32_t level, std::string & line) {
    if (level >= log_min_level.load(std::memory_order_relaxed)) tdmGoLog(level, line.data(), (int32_t) line.size());
}

static void log_flush() {
    auto & s = thread_log;
    while (!s.line.empty() && (s.line.back() == '\n' || s.line.back() == ' ')) s.line.pop_back();
    if (!s.line.empty() && s.line.find_first_not_of('.') != std::string::npos) {
        std::string & messages = s.level >= GGML_LOG_LEVEL_ERROR ? s.errors : s.warnings;
        if (s.capturing && s.level >= GGML_LOG_LEVEL_WARN && messages.size() < CAPTURE_MAX_BYTES) {
            if (!messages.empty()) messages += "; ";
            messages += s.line;
            s.captured.emplace_back(s.level, s.line);
        } else {
            log_write(s.level, s.line);
        }
    }
    s.line.clear();
}

static void on_log(enum ggml_log_level level, const char * text, void *) {
    auto & s = thread_log;
    if (level != GGML_LOG_LEVEL_CONT) {
        if (!s.line.empty()) log_flush();
        s.level = level;
    }
    const bool wanted = s.level >= log_min_level.load(std::memory_order_relaxed) || (s.capturing && s.level >= GGML_LOG_LEVEL_WARN);
    if (!wanted || text == nullptr) return;
    s.line.append(text, std::min(strlen(text), LINE_MAX_BYTES - std::min(s.line.size(), LINE_MAX_BYTES)));
    if (!s.line.empty() && (s.line.back() == '\n' || s.line.size() >= LINE_MAX_BYTES)) log_flush();
}

// A backend logs an error and then aborts, on the same thread. What is captured there would be lost with the process.
static void on_abort(const char * message) {
    fprintf(stderr, "%s\n", message); // for the case that logging hangs
    auto & s = thread_log;
    log_flush();
    s.capturing = false;
    for (auto & [level, line] : s.captured) log_write(level, line);
    std::string line = message;
    log_write(GGML_LOG_LEVEL_ERROR, line);
}

void tdm_log_start(int32_t min_level) {
    log_min_level.store(min_level);
    llama_log_set(on_log, nullptr);
    ggml_set_abort_callback(on_abort);
}

// Captures the library's warnings and errors while it exists. When an error reports them they are only logged at level
// debug.
struct log_capture {
    mutable bool reported = false;
    log_capture() {
        thread_log.errors.clear();
        thread_log.warnings.clear();
        thread_log.captured.clear();
        thread_log.capturing = true;
    }
    ~log_capture() {
        thread_log.capturing = false;
        for (auto & [level, line] : thread_log.captured) log_write(reported ? 1 : level, line);
        thread_log.captured.clear();
    }
    void write_error(char * err, size_t size, const char * otherwise) const {
        if (!thread_log.line.empty()) log_flush();
        reported = true;
        const std::string & s = thread_log.errors.empty() ? thread_log.warnings : thread_log.errors;
        snprintf(err, size, "%s", s.empty() ? otherwise : s.c_str());
    }
};

// ---- process and devices --------------------------------------------------------------------------------------------

int32_t tdm_backend_score(const char * path, char * err, size_t err_size) {
    void * library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        snprintf(err, err_size, "%s", dlerror());
        return 0;
    }
    int32_t score = 0;
    if (auto * of = (int (*)()) dlsym(library, "ggml_backend_score")) score = (int32_t) of();
    dlclose(library);
    return score;
}

void tdm_backend_load(const char * path, tdm_backend * out, char * err, size_t err_size) {
    *out = {};
    log_capture captured;
    try {
        ggml_backend_reg_t reg = ggml_backend_load(path);
        if (reg != nullptr) {
            out->name    = ggml_backend_reg_name(reg);
            out->devices = (int32_t) ggml_backend_reg_dev_count(reg);
        }
        if (out->devices == 0) captured.write_error(err, err_size, "");
    } catch (const std::exception & e) {
        captured.write_error(err, err_size, e.what());
    } catch (...) {
        captured.write_error(err, err_size, "unknown exception");
    }
}

void tdm_backends_start(void) { llama_backend_init(); }

const char * tdm_build_info(void) {
    static const std::string info = std::string("llama.cpp ") + llama_version() + " " + llama_commit() + "; " + llama_print_system_info();
    return info.c_str();
}

int32_t tdm_device_count(void) { return (int32_t) ggml_backend_dev_count(); }

static void describe(ggml_backend_dev_t dev, tdm_device * out) {
    out->name        = ggml_backend_dev_name(dev);
    out->description = ggml_backend_dev_description(dev);
    out->backend     = ggml_backend_reg_name(ggml_backend_dev_backend_reg(dev));
    out->type        = ggml_backend_dev_type(dev);
}

bool tdm_device_get(int32_t i, tdm_device * out) {
    *out = {};
    if (i < 0 || i >= tdm_device_count()) return false;
    describe(ggml_backend_dev_get((size_t) i), out);
    return true;
}

void tdm_device_open(int32_t i, tdm_device * out) {
    if (i < 0 || i >= tdm_device_count()) return;
    ggml_backend_dev_props props;
    ggml_backend_dev_get_props(ggml_backend_dev_get((size_t) i), &props);
    out->free  = props.memory_free;
    out->total = props.memory_total;
    out->bus   = props.device_id;
}

static std::atomic<ggml_backend_dev_t> home_device{nullptr};

void tdm_device_home(int32_t i) { home_device = i >= 0 && i < tdm_device_count() ? ggml_backend_dev_get((size_t) i) : nullptr; }

// Called before whatever allocates or frees.
static void go_home() {
    static thread_local ggml_backend_dev_t at = nullptr;
    ggml_backend_dev_t                     home = home_device;
    if (home == nullptr || home == at) return;
    at = home;
    size_t free, total;
    ggml_backend_dev_memory(home, &free, &total); // makes it the thread's
}

// The number of a device; of the CPU for none, as buffers in the host's memory have.
static int32_t number_of(ggml_backend_dev_t dev) {
    if (dev == nullptr) dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    for (int32_t i = 0; i < tdm_device_count(); i++) {
        if (ggml_backend_dev_get((size_t) i) == dev) return i;
    }
    return -1;
}

// The memory of the device to which a kind of buffer belongs. Buffers that a GPU's driver keeps in the host's memory
// are the host's.
static tdm_memory * memory_of(ggml_backend_buffer_type_t type, tdm_memory * out, int32_t n) {
    const int32_t i = number_of(ggml_backend_buft_is_host(type) ? nullptr : ggml_backend_buft_get_device(type));
    return i >= 0 && i < n ? out + i : nullptr;
}

void tdm_row_invariance(int32_t mode) { ggml_set_row_invariance((enum ggml_row_invariance) mode); }

// ---- models ---------------------------------------------------------------------------------------------------------

static bool on_progress(float ratio, void * data) { return tdmGoProgress(ratio, (uintptr_t) data); }

static struct llama_model * load_model(const char * path, const tdm_load * params, char * err, size_t err_size) {
    log_capture captured;
    try {
        go_home();
        llama_model_params p = llama_model_default_params();
        p.load_mode    = params->mmap ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
        p.lazy_mode    = LLAMA_LAZY_MODE_OFF;
        p.n_gpu_layers = params->gpu_layers;
        p.main_gpu     = params->main_gpu;
        p.split_mode   = params->one_gpu ? LLAMA_SPLIT_MODE_NONE : LLAMA_SPLIT_MODE_LAYER;
        p.tensor_split = params->split;
        p.vocab_only   = params->vocab_only;
        std::vector<ggml_backend_dev_t> devices;
        for (int32_t i = 0; i < params->n_devices; i++) devices.push_back(ggml_backend_dev_get((size_t) params->devices[i]));
        devices.push_back(nullptr);
        p.devices = devices.data();
        if (params->progress != 0) {
            p.progress_callback           = on_progress;
            p.progress_callback_user_data = (void *) params->progress;
        }
        llama_model * model = llama_model_load_from_file(path, p);
        if (model == nullptr) captured.write_error(err, err_size, "llama.cpp gives no reason");
        return model;
    } catch (const std::exception & e) {
        captured.write_error(err, err_size, e.what());
    } catch (...) {
        captured.write_error(err, err_size, "unknown exception");
    }
    return nullptr;
}

static const char LOAD_THREAD_NAME[] = "model-load"; // and of the threads that it starts

// Loading may rearrange weights with OpenMP, whose worker threads would stay with the thread that loaded. From then on
// the library counts more threads than processors, and lets all of them sleep instead of spin at each barrier: a step
// of 7 ms took 10. With a thread that ends, its workers end.
struct llama_model * tdm_model_load(const char * path, const tdm_load * params, char * err, size_t err_size) {
    if (params->vocab_only) return load_model(path, params, err, err_size);
    struct llama_model * model = nullptr;
    try {
        std::thread([&] {
            pthread_setname_np(pthread_self(), LOAD_THREAD_NAME);
            model = load_model(path, params, err, err_size);
        }).join();
    } catch (const std::exception & e) {
        snprintf(err, err_size, "no thread to load on: %s", e.what());
    }
    return model;
}

void tdm_model_free(struct llama_model * model) {
    go_home();
    llama_model_free(model);
}

void tdm_context_free(struct llama_context * ctx) {
    go_home();
    llama_free(ctx);
}

struct llama_context * tdm_context_new(struct llama_model * model, const tdm_context * params, char * err, size_t err_size) {
    log_capture captured;
    try {
        go_home();
        llama_context_params p = llama_context_default_params();
        p.n_ctx           = params->cells;
        p.n_batch         = params->step_tokens;
        p.n_ubatch        = params->ubatch;
        p.n_seq_max       = params->sequences;
        p.n_outputs_max   = params->embeddings ? params->step_tokens : params->outputs;
        p.n_outputs_max_per_seq = 1; // while candidates are attached; it says nothing without
        p.embeddings      = params->embeddings;
        if (params->embeddings) p.pooling_type = params->classify ? LLAMA_POOLING_TYPE_RANK : LLAMA_POOLING_TYPE_NONE;
        p.n_threads       = params->threads;
        p.n_threads_batch = params->threads;
        p.kv_unified      = !params->streams; // unified: one sequence may use what the others leave, and prefixes are shared
        p.no_perf         = true;
        p.type_k          = (ggml_type) params->key_type;
        p.type_v          = (ggml_type) params->value_type;
        p.flash_attn_type   = (llama_flash_attn_type) params->flash;
        p.rope_scaling_type = (llama_rope_scaling_type) params->rope_type;
        p.rope_freq_base    = params->rope_base;
        p.rope_freq_scale   = params->rope_scale;
        p.yarn_orig_ctx     = params->original_context;
        p.swa_full        = true; // a window that keeps its cells can be rolled back
        llama_context * ctx = llama_init_from_model(model, p);
        if (ctx == nullptr) captured.write_error(err, err_size, "llama.cpp gives no reason");
        return ctx;
    } catch (const std::exception & e) {
        captured.write_error(err, err_size, e.what());
    } catch (...) {
        captured.write_error(err, err_size, "unknown exception");
    }
    return nullptr;
}

bool tdm_context_flash(const struct llama_context * ctx) { return ctx->get_cparams().flash_attn; }

int32_t tdm_cache_layers(const struct llama_model * model, tdm_cache_layer * out, int32_t most) {
    if (llama_model_is_recurrent(model)) return 0;
    try {
        const auto & h = model->hparams;
        bool    only_recurrent = true; // a hybrid whose layers have both
        int32_t n              = 0;
        for (uint32_t il = 0; il < h.n_layer_all; il++) only_recurrent = only_recurrent && h.is_recr(il);
        for (uint32_t il = 0; il < h.n_layer_all && n < most; il++) {
            if (!h.has_kv(il) || (h.is_recr(il) && !only_recurrent) || h.n_embd_k_gqa(il) == 0) continue;
            out[n++] = { h.n_embd_head_k(il), h.n_embd_head_v(il), h.n_embd_k_gqa(il), h.is_mla() ? 0 : h.n_embd_v_gqa(il), h.n_head(il),
                         number_of(model->dev_layer(il)) };
        }
        return n;
    } catch (...) {
        return TDM_EXCEPTION;
    }
}

int32_t tdm_output_device(const struct llama_model * model) { return number_of(model->dev_output()); }

void tdm_model_memory(const struct llama_model * model, tdm_memory * out, int32_t n) {
    try {
        for (const auto & [type, size] : model->memory_breakdown()) {
            if (tdm_memory * m = memory_of(type, out, n)) m->weights += size;
        }
    } catch (...) {
    }
}

void tdm_context_memory(const struct llama_context * ctx, tdm_memory * out, int32_t n) {
    try {
        for (const auto & [type, part] : llama_get_memory_breakdown(ctx)) {
            tdm_memory * m = memory_of(type, out, n);
            if (m == nullptr) continue;
            m->cache += part.context;
            m->compute += part.compute;
        }
    } catch (...) {
    }
}

struct llama_adapter_lora * tdm_adapter_load(struct llama_model * model, const char * path, char * err, size_t err_size) {
    log_capture captured;
    try {
        go_home();
        llama_adapter_lora * a = llama_adapter_lora_init(model, path);
        if (a == nullptr) captured.write_error(err, err_size, "llama.cpp gives no reason");
        if (a != nullptr && a->ab_map.empty()) { // the library passes over what it has no use for
            llama_adapter_lora_free(a);
            snprintf(err, err_size, "none of the adapter's tensors applies to the base model");
            return nullptr;
        }
        return a;
    } catch (const std::exception & e) {
        captured.write_error(err, err_size, e.what());
    } catch (...) {
        captured.write_error(err, err_size, "unknown exception");
    }
    return nullptr;
}

void tdm_adapter_free(struct llama_adapter_lora * adapter) {
    go_home();
    llama_adapter_lora_free(adapter);
}

void tdm_adapter_memory(const struct llama_adapter_lora * adapter, tdm_memory * out, int32_t n) {
    try {
        for (const auto & buf : adapter->bufs) {
            if (tdm_memory * m = memory_of(ggml_backend_buffer_get_type(buf.get()), out, n)) m->weights += ggml_backend_buffer_get_size(buf.get());
        }
    } catch (...) {
    }
}

int32_t tdm_adapter_use(struct llama_context * ctx, struct llama_adapter_lora * adapter) {
    try {
        if (adapter == nullptr) return llama_set_adapters_lora(ctx, nullptr, 0, nullptr);
        float scale = 1.0f;
        return llama_set_adapters_lora(ctx, &adapter, 1, &scale);
    } catch (...) {
        return TDM_EXCEPTION;
    }
}

bool tdm_mixed_adapters(struct llama_context * ctx, char * why, size_t why_size) {
    try {
        return llama_mixed_adapters_supported(ctx, why, why_size);
    } catch (const std::exception & e) {
        snprintf(why, why_size, "%s", e.what());
    } catch (...) {
        snprintf(why, why_size, "unknown exception");
    }
    return false;
}

int32_t tdm_adapter_slot_add(struct llama_context * ctx, struct llama_adapter_lora * adapter, char * err, size_t err_size) {
    log_capture captured;
    try {
        go_home();
        const int32_t slot = llama_adapter_slot_add(ctx, adapter, 1.0f);
        if (slot < 0) captured.write_error(err, err_size, "llama.cpp gives no reason");
        return slot;
    } catch (const std::exception & e) {
        captured.write_error(err, err_size, e.what());
    } catch (...) {
        captured.write_error(err, err_size, "unknown exception");
    }
    return TDM_EXCEPTION;
}

void tdm_adapter_slot_remove(struct llama_context * ctx, int32_t slot) {
    try {
        llama_adapter_slot_remove(ctx, slot);
    } catch (...) {
    }
}

int32_t tdm_decode(struct llama_context * ctx, int32_t n, int32_t * token, int32_t * pos, int32_t * seq, int8_t * output) {
    static thread_local std::vector<int32_t>   counts;
    static thread_local std::vector<int32_t *> seqs;
    try {
        go_home();
        if ((int32_t) counts.size() < n) counts.resize(n, 1);
        if ((int32_t) seqs.size() < n) seqs.resize(n);
        for (int32_t i = 0; i < n; i++) seqs[i] = seq + i;
        llama_batch batch = { n, token, nullptr, pos, counts.data(), seqs.data(), output };
        const int32_t rc = llama_decode(ctx, batch);
        if (rc == 0) llama_synchronize(ctx);
        return rc;
    } catch (const std::bad_alloc &) {
        return TDM_NO_MEMORY;
    } catch (const std::exception & e) {
        std::string line = std::string("llama_decode: ") + e.what();
        log_write(GGML_LOG_LEVEL_ERROR, line);
        if (strstr(e.what(), "failed to allocate") != nullptr) return TDM_NO_MEMORY;
        return strstr(e.what(), "DeviceLost") != nullptr ? TDM_COMPUTE_FAILED : TDM_EXCEPTION; // as Vulkan's backend has it
    } catch (...) {
        return TDM_EXCEPTION;
    }
}
