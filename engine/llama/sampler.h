//go:build llama

// Drawing one token from a row of logits. Knows nothing of llama.cpp.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TDM_TOP_MAX 20

typedef struct {
    float    temperature; // <= 0: greedy
    int32_t  top_k;       // 0: off
    float    top_p;       // >= 1: off
    float    min_p;       // 0: off
    float    repeat, presence, frequency;
    int32_t  window;      // tokens that the penalties look at
    int32_t  top;         // how many top entries to report
    bool     logprobs;    // compute log-probabilities, which takes another pass over the row; implied by top
    uint64_t key;         // seed and choice, mixed
} tdm_sampling;

typedef struct {
    int32_t token;
    // natural logarithm, temperature 1, whole vocabulary, before bias and penalties; within 0.0002; NAN when not wanted
    float   logprob;
    float   margin;  // INFINITY with a single candidate
    int32_t n_top;
    int32_t top_token[TDM_TOP_MAX];
    float   top_logprob[TDM_TOP_MAX];
} tdm_draw;

typedef struct tdm_sampler tdm_sampler;

// What is added to logits, by token in ascending order, and tokens that are never drawn unless there is no other one.
typedef struct {
    int32_t         n_bias, n_ignored;
    const int32_t * bias_token;
    const float *   bias;
    const int32_t * ignored;
} tdm_token_rules;

// NULL: out of memory.
tdm_sampler * tdm_sampler_new(const tdm_sampling * params, const tdm_token_rules * rules);
void          tdm_sampler_free(tdm_sampler * s);
uint64_t      tdm_sampler_key(uint64_t seed, uint32_t choice);

// Moves the penalty window past a token.
void tdm_sampler_accept(tdm_sampler * s, int32_t token);

// Draws the token at place index from n logits, which are changed during the call and restored. False: no logit is
// finite.
bool tdm_sampler_draw(tdm_sampler * s, float * logits, int32_t n, uint32_t index, tdm_draw * out);

// The same with tokens left out: bit t % 32 of word t / 32 is set for those that may come. The others are gone from
// logits afterwards. Log-probabilities are those of the whole row.
bool tdm_sampler_draw_masked(tdm_sampler * s, float * logits, int32_t n, uint32_t index, const uint32_t * mask, tdm_draw * out);

// Whether tokens may be drawn from the n largest logits of a row of n_vocab. That takes a chain that nothing but them
// decides, as a rule: not one with log-probabilities, with top_p alone, or with a bias that raises a token.
bool tdm_sampler_takes_candidates(const tdm_sampler * s, int32_t n_vocab, int32_t n);

// Draws from the n largest logits of a row of n_vocab, in any order, what tdm_sampler_draw draws from the row: the same
// token and margin. False: these don't decide it, for another token may belong to those that are drawn from.
bool tdm_sampler_draw_candidates(tdm_sampler * s, const int32_t * tokens, const float * logits, int32_t n, int32_t n_vocab, uint32_t index,
                                 tdm_draw * out);

typedef struct {
    float   logprob; // as in tdm_draw
    int32_t n_top;
    int32_t top_token[TDM_TOP_MAX];
    float   top_logprob[TDM_TOP_MAX];
} tdm_score;

// The log-probability of a token in a row of n logits, and the top most likely ones. False: the token isn't in the row,
// no logit is finite, or memory ran out.
bool tdm_score_token(const float * logits, int32_t n, int32_t token, int32_t top, tdm_score * out);

#ifdef __cplusplus
}
#endif
