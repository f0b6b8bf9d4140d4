//go:build llama

// What embeddings need of llama.cpp beyond llama.h and shim.h.
#pragma once

#include "shim.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    bool    causal;     // a token sees only those before it
    bool    classifier; // there are weights that score a text
    int32_t pooling;    // as in the file: enum llama_pooling_type
    int32_t size;       // numbers of a token's vector
} tdm_embedding;
bool tdm_embedding_facts(const struct llama_model * model, tdm_embedding * out);

#ifdef __cplusplus
}
#endif
