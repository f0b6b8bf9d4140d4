//go:build llama

// What Go needs of llguidance beyond its header: structures to fill, and the callback into Go for tokenising.
#pragma once

#include "llguidance.h"

// The most work and memory that one grammar may take.
typedef struct {
    uint64_t compile_fuel, mask_fuel;
    size_t   row_items, mask_items, lexer_states, symbols;
} tdm_grammar_limits;

// lens and bytes hold the text of each token; ends[0] is the end token that is preferred. handle goes to
// grammarTokenize.
LlgTokenizer * tdm_grammar_vocabulary(uint32_t n, const uint32_t * lens, const uint8_t * bytes, const uint32_t * ends, uint32_t n_ends,
                                      bool canonical, uintptr_t handle, char * err, size_t err_size);

// Our own functions in the library: see scripts/native/llguidance.
void   tandem_llguidance_bound(size_t bytes);
size_t tandem_llguidance_used(void);

// The clock of the calling thread's processor time, which any thread may read while that one lives; and its reading in
// ns.
int     tdm_thread_clock(void);
int64_t tdm_clock_read(int clock);

// On a thread of its own. NULL: no thread could be started.
LlgMatcher * tdm_grammar_matcher(const LlgTokenizer * vocabulary, const tdm_grammar_limits * limits, const char * kind, const char * text);
