//go:build llama

#include "llguidance_bridge.h"
#include "_cgo_export.h"

#include <pthread.h>
#include <time.h>

int tdm_thread_clock(void) {
    clockid_t clock;
    return pthread_getcpuclockid(pthread_self(), &clock) == 0 ? (int) clock : CLOCK_MONOTONIC;
}

int64_t tdm_clock_read(int clock) {
    struct timespec t = { 0 };
    clock_gettime((clockid_t) clock, &t);
    return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}

static size_t tokenize(const void * user, const uint8_t * bytes, size_t n, uint32_t * out, size_t max) {
    return grammarTokenize((uintptr_t) user, (uint8_t *) bytes, n, out, max);
}

LlgTokenizer * tdm_grammar_vocabulary(uint32_t n, const uint32_t * lens, const uint8_t * bytes, const uint32_t * ends, uint32_t n_ends,
                                      bool canonical, uintptr_t handle, char * err, size_t err_size) {
    LlgTokenizerInitV2 init = { 0 };
    init.struct_size         = sizeof(init);
    init.vocab_size          = n;
    init.token_lens          = lens;
    init.token_bytes         = bytes;
    init.tok_eos             = ends[0];
    init.tok_eos_extra       = n_ends > 1 ? ends + 1 : NULL;
    init.tok_eos_extra_count = n_ends - 1;
    if (canonical) {
        init.tokenize_fn             = tokenize;
        init.tokenize_user_data      = (const void *) handle;
        init.tokenize_assumes_string = true;
    } else {
        init.use_approximate_greedy_tokenize_fn = true;
    }
    return llg_new_tokenizer_v2(&init, err, err_size);
}

static LlgMatcher * compile(const LlgTokenizer * vocabulary, const tdm_grammar_limits * limits, const char * kind, const char * text) {
    LlgConstraintInit init = { 0 };
    llg_constraint_init_set_defaults(&init, vocabulary);
    init.log_buffer_level          = 0;
    init.log_stderr_level          = 0;
    init.limits.initial_lexer_fuel = limits->compile_fuel;
    init.limits.step_lexer_fuel    = limits->mask_fuel;
    init.limits.max_items_in_row   = limits->row_items;
    init.limits.step_max_items     = limits->mask_items;
    init.limits.max_lexer_states   = limits->lexer_states;
    init.limits.max_grammar_size   = limits->symbols;
    init.limits.verbose_errors     = false;
    return llg_new_matcher(&init, kind, text);
}

// The library follows references and lists by recursion, deeper than an ordinary stack may be. What isn't used costs
// nothing.
#define COMPILE_STACK ((size_t) 1 << 30)

struct compilation {
    const LlgTokenizer *       vocabulary;
    const tdm_grammar_limits * limits;
    const char *               kind;
    const char *               text;
    LlgMatcher *               result;
};

static void * run(void * job) {
    struct compilation * c = job;
    c->result              = compile(c->vocabulary, c->limits, c->kind, c->text);
    return NULL;
}

LlgMatcher * tdm_grammar_matcher(const LlgTokenizer * vocabulary, const tdm_grammar_limits * limits, const char * kind, const char * text) {
    struct compilation c = { vocabulary, limits, kind, text, NULL };
    pthread_attr_t     how;
    pthread_t          thread;
    if (pthread_attr_init(&how) != 0) return NULL;
    const bool started = pthread_attr_setstacksize(&how, COMPILE_STACK) == 0 && pthread_create(&thread, &how, run, &c) == 0;
    pthread_attr_destroy(&how);
    if (!started) return NULL;
    pthread_join(thread, NULL);
    return c.result;
}
