//go:build llama

// The library attaches a chain of samplers to each sequence and puts what they do on the device into the graph. Ours
// hold one sampler, which takes the largest logits.

#include "shim.h"

#include <memory>
#include <vector>

struct tdm_candidates {
    std::vector<llama_sampler *> chains; // by sequence
    int32_t                      sequences;
    int32_t                      n;
};

static void free_chains(tdm_candidates * c) {
    for (llama_sampler * chain : c->chains) llama_sampler_free(chain);
    c->chains.clear();
}

tdm_candidates * tdm_candidates_new(int32_t sequences, int32_t n) {
    try {
        auto c       = std::make_unique<tdm_candidates>();
        c->sequences = sequences;
        c->n         = n;
        return c.release();
    } catch (...) {
        return nullptr;
    }
}

void tdm_candidates_free(tdm_candidates * c) {
    if (c == nullptr) return;
    free_chains(c);
    delete c;
}

bool tdm_candidates_attach(struct llama_context * ctx, tdm_candidates * c) {
    try {
        c->chains.reserve(c->sequences);
        bool all = true;
        for (int32_t seq = 0; seq < c->sequences; seq++) { // a chain can be attached once
            llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
            c->chains.push_back(chain);
            llama_sampler_chain_add(chain, llama_sampler_init_top_k(c->n));
            all = llama_set_sampler(ctx, seq, chain) && all;
        }
        if (all) return true;
    } catch (...) {
    }
    tdm_candidates_detach(ctx, c);
    return false;
}

void tdm_candidates_detach(struct llama_context * ctx, tdm_candidates * c) {
    try {
        for (int32_t seq = 0; seq < c->sequences; seq++) llama_set_sampler(ctx, seq, nullptr);
    } catch (...) {
        return; // the context still refers to them
    }
    free_chains(c);
}

int32_t tdm_candidates_get(struct llama_context * ctx, int32_t at, const int32_t ** token, const float ** logit) {
    try {
        const uint32_t n = llama_get_sampled_candidates_count_ith(ctx, at);
        if (n == 0 || llama_get_sampled_logits_count_ith(ctx, at) != n) return 0;
        *token = llama_get_sampled_candidates_ith(ctx, at);
        *logit = llama_get_sampled_logits_ith(ctx, at);
        return *token != nullptr && *logit != nullptr ? (int32_t) n : 0;
    } catch (...) {
        return 0;
    }
}
