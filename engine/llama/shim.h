//go:build llama

// What Go needs of llama.cpp beyond llama.h: the C++ parts (templates, memory figures) and calls that may throw, with
// every exception caught. Nothing is decided here; limits are checked before the call.
#pragma once

#include "llama.h"
#include "llama-mixed-adapters.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- process
void    tdm_log_start(int32_t min_level); // ggml levels: 1 debug, 2 info, 3 warn, 4 error
typedef struct {
    const char * name;    // NULL: it couldn't be loaded
    int32_t      devices; // that it gives
} tdm_backend;
// How well a variant fits this processor; 0: not at all. err says why it can't be loaded at all.
int32_t tdm_backend_score(const char * path, char * err, size_t err_size);
// Loads one backend. err says why it can't be loaded or gives no device, and is empty when the library says nothing.
void    tdm_backend_load(const char * path, tdm_backend * out, char * err, size_t err_size);
void    tdm_backends_start(void); // after all of them
const char * tdm_build_info(void);
enum { TDM_FREE = 0, TDM_ATTENTION = 1, TDM_ALL = 2 };
// What a CPU computes in the same way for each row; for the whole process, before the first load.
void    tdm_row_invariance(int32_t mode);

// ---- devices
typedef struct {
    const char * name;
    const char * description;
    const char * backend; // name of the backend: CPU, CUDA …
    int32_t      type;    // ggml_backend_dev_type
    size_t       free, total; // 0 before tdm_device_open
    const char * bus;         // address on the PCI bus, or NULL; the same
} tdm_device;
int32_t tdm_device_count(void);
bool    tdm_device_get(int32_t i, tdm_device * out);
// Adds memory and bus. A driver may take memory of a device that is asked for this, and CUDA's backend aborts where the
// device can't be had.
void    tdm_device_open(int32_t i, tdm_device * out);
// Which device threads have from then on for what isn't about a certain one; -1: it doesn't matter. With CUDA it is the
// first of all until the thread used another, and is opened when memory of the host is pinned or any memory is freed.
void    tdm_device_home(int32_t i);
// Memory of one device, in bytes.
typedef struct {
    uint64_t weights, cache, compute;
} tdm_memory;

// ---- models; err receives the library's last errors or warnings
typedef struct {
    bool            mmap;
    int32_t         gpu_layers; // < 0: all
    int32_t         main_gpu;
    bool            one_gpu;
    const float *   split; // NULL or llama_max_devices() numbers
    uintptr_t       progress;
    bool            vocab_only;
    const int32_t * devices; // numbers of those that may hold weights beside the CPU; main_gpu and split count these
    int32_t         n_devices;
} tdm_load;
struct llama_model * tdm_model_load(const char * path, const tdm_load * params, char * err, size_t err_size);

void                 tdm_model_free(struct llama_model * model);

typedef struct {
    uint32_t cells, step_tokens, ubatch, sequences;
    uint32_t outputs; // rows of logits of one decode at most: with more the library aborts
    int32_t  threads;
    bool     streams;    // each sequence has cells of its own, a part of all; otherwise they share them
    bool     embeddings; // each token gives its vector, or with classify each text its scores
    bool     classify;
    int32_t  key_type, value_type; // ggml_type of the KV cache
    int32_t  flash;                // llama_flash_attn_type
    int32_t  rope_type;            // llama_rope_scaling_type
    float    rope_base, rope_scale;  // 0: as the model's file says
    uint32_t original_context;     // tokens that the model was trained for without scaling; 0: as the file says
} tdm_context;
struct llama_context * tdm_context_new(struct llama_model * model, const tdm_context * params, char * err, size_t err_size);
void tdm_context_free(struct llama_context * ctx);
bool tdm_context_flash(const struct llama_context * ctx); // attention is computed in one operation
#define TDM_LAYERS_MAX 512 // of the library
// A layer that keeps keys and values: numbers of a head and of a token. value_row is 0 where values are a part of keys.
// heads is how many attend to them.
typedef struct {
    uint32_t key_head, value_head, key_row, value_row, heads;
    int32_t  device; // number of the device that keeps them
} tdm_cache_layer;
int32_t tdm_cache_layers(const struct llama_model * model, tdm_cache_layer * out, int32_t most); // how many there are
// Adds what lies on each device to the first n of out, by the device's number; what no device claims is the CPU's.
void tdm_model_memory(const struct llama_model * model, tdm_memory * out, int32_t n);
void tdm_context_memory(const struct llama_context * ctx, tdm_memory * out, int32_t n); // without the weights

struct llama_adapter_lora * tdm_adapter_load(struct llama_model * model, const char * path, char * err, size_t err_size);
void tdm_adapter_free(struct llama_adapter_lora * adapter);
void tdm_adapter_memory(const struct llama_adapter_lora * adapter, tdm_memory * out, int32_t n); // as weights
int32_t tdm_adapter_use(struct llama_context * ctx, struct llama_adapter_lora * adapter); // NULL: none
bool    tdm_mixed_adapters(struct llama_context * ctx, char * why, size_t why_size); // true: one batch may have several
int32_t tdm_adapter_slot_add(struct llama_context * ctx, struct llama_adapter_lora * adapter, char * err, size_t err_size); // < 0: failed
void    tdm_adapter_slot_remove(struct llama_context * ctx, int32_t slot);

// Results of tdm_decode beside 0 and 1 (no cells); others leave the context as it was, or as far as it came.
enum { TDM_NO_MEMORY = -2, TDM_COMPUTE_FAILED = -3, TDM_EXCEPTION = -1000 };
int32_t tdm_decode(struct llama_context * ctx, int32_t n, int32_t * token, int32_t * pos, int32_t * seq, int8_t * output);

// ---- sampling on the device
// The largest logits of each row, found where the row was computed. While they are attached to a context, one sequence
// of a decode may have one output, and its row itself comes to the host only by chance.
typedef struct tdm_candidates tdm_candidates;
tdm_candidates * tdm_candidates_new(int32_t sequences, int32_t n); // n: of each row. NULL: out of memory
void             tdm_candidates_free(tdm_candidates * c);          // after the context to which they are attached
// To attach and to detach has the next decode reserve its memory anew. False: it can't be done, and none is attached.
bool             tdm_candidates_attach(struct llama_context * ctx, tdm_candidates * c);
void             tdm_candidates_detach(struct llama_context * ctx, tdm_candidates * c);
// Those of output at of the last decode, in any order. Returns how many; 0: there are none.
int32_t          tdm_candidates_get(struct llama_context * ctx, int32_t at, const int32_t ** token, const float ** logit);
int32_t          tdm_output_device(const struct llama_model * model); // number of the device that computes the logits

// A thread that decodes; meanwhile nothing else may use the context. Post begins a decode; the descriptor becomes
// readable when it has ended; result waits for that and returns the result of tdm_decode. Free ends the thread once it
// is idle.
typedef struct tdm_thread tdm_thread;
// NULL: no thread or descriptor could be made. The caller must close the descriptor.
tdm_thread * tdm_thread_new(int * fd);
void         tdm_thread_post(tdm_thread * t, struct llama_context * ctx, int32_t n, int32_t * token, int32_t * pos, int32_t * seq, int8_t * output);
int32_t      tdm_thread_result(tdm_thread * t);
void         tdm_thread_free(tdm_thread * t);

// ---- vocabulary
enum { TDM_END = 1, TDM_CONTROL = 2, TDM_USER = 4, TDM_UNKNOWN = 8, TDM_LSTRIP = 16, TDM_RSTRIP = 32 };
// Fills flags and offsets (n + 1) and writes the pieces to buf as far as they fit; returns the bytes needed.
size_t  tdm_vocab_pieces(const struct llama_vocab * vocab, uint8_t * flags, uint32_t * offsets, char * buf, size_t size);
int32_t tdm_tokenize(const struct llama_vocab * vocab, const char * text, int32_t len, int32_t * out, int32_t max, bool special);

// ---- chat template
typedef struct tdm_template tdm_template;
typedef struct {
    const char * role;
    const char * content;
    size_t       content_len;
} tdm_message;
typedef struct {
    size_t        parts;
    size_t *      ends;  // where part i ends in text
    uint8_t *     input; // 1: written by the client
    char *        text;
} tdm_rendered;
// none: the model has no template
tdm_template * tdm_template_new(const struct llama_model * model, bool * none, char * err, size_t err_size);
void           tdm_template_free(tdm_template * t);
// What the library made of the model's template; the texts live as long as t.
const char *   tdm_template_source(const tdm_template * t);
const char *   tdm_template_bos(const tdm_template * t);
const char *   tdm_template_eos(const tdm_template * t);
bool           tdm_template_render(const tdm_template * t, const tdm_message * messages, size_t n, tdm_rendered * out, char * err, size_t err_size);
void           tdm_rendered_free(tdm_rendered * r);

#ifdef __cplusplus
}
#endif
