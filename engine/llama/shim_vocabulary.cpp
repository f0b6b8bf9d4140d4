//go:build llama

#include "shim.h"

#include <algorithm>

static uint8_t flags_of(const struct llama_vocab * vocab, llama_token t) {
    const int attr = llama_vocab_get_attr(vocab, t);
    uint8_t   f    = 0;
    if (llama_vocab_is_eog(vocab, t)) f |= TDM_END;
    if (attr & LLAMA_TOKEN_ATTR_CONTROL) f |= TDM_CONTROL;
    if (attr & LLAMA_TOKEN_ATTR_USER_DEFINED) f |= TDM_USER;
    if (attr & LLAMA_TOKEN_ATTR_UNKNOWN) f |= TDM_UNKNOWN;
    if (attr & LLAMA_TOKEN_ATTR_LSTRIP) f |= TDM_LSTRIP;
    if (attr & LLAMA_TOKEN_ATTR_RSTRIP) f |= TDM_RSTRIP;
    return f;
}

size_t tdm_vocab_pieces(const struct llama_vocab * vocab, uint8_t * flags, uint32_t * offsets, char * buf, size_t size) {
    const int32_t n    = llama_vocab_n_tokens(vocab);
    size_t        used = 0;
    try {
        for (llama_token t = 0; t < n; t++) {
            offsets[t] = (uint32_t) used;
            flags[t]   = flags_of(vocab, t);
            const int32_t room = (int32_t) std::min<size_t>(size > used ? size - used : 0, 1 << 20);
            const int32_t len  = llama_token_to_piece(vocab, t, buf + std::min(used, size), room, 0, false);
            used += (size_t) (len < 0 ? -len : len);
        }
    } catch (...) {
        return 0;
    }
    offsets[n] = (uint32_t) used;
    return used;
}

int32_t tdm_tokenize(const struct llama_vocab * vocab, const char * text, int32_t len, int32_t * out, int32_t max, bool special) {
    try {
        return llama_tokenize(vocab, text, len, out, max, false, special);
    } catch (...) {
        return INT32_MIN;
    }
}
