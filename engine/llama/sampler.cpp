//go:build llama

// One pass over the row finds the maximum of each block of 256 logits and the log-sum-exp. All that follows looks only
// into blocks whose maximum says that they matter, so that the common draws never build an array of the whole
// vocabulary.

#include "sampler.h"
#include "logit_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

struct bias_entry {
    int32_t token;
    float   value;
};

struct saved_logit {
    int32_t token;
    float   value;
};

struct candidate {
    int32_t token;
    float   logit;
};

struct tdm_sampler {
    tdm_sampling            params;
    std::vector<bias_entry> bias; // by token, each once
    std::vector<int32_t>    ignored;
    std::vector<int32_t>    window; // ring of the last tokens
    size_t                  next = 0;

    // scratch, kept between draws
    std::vector<float>       block_max;
    std::vector<float>       weight;
    std::vector<int32_t>     places;
    std::vector<saved_logit> saved;
    std::vector<candidate>   candidates;
};

// ---- the noise ------------------------------------------------------------------------------------------------------

static uint64_t mix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

template <typename T> TDM_INLINE T mix32(T x) {
    x ^= x >> 16;
    x *= 0x21f0aaadu;
    x ^= x >> 15;
    x *= 0xd35a2d97u;
    return x ^ (x >> 15);
}

struct noise_key {
    uint32_t a, b;
};

static noise_key key_for(uint64_t key, uint32_t index) {
    const uint64_t k = mix64(key ^ mix64(index));
    return { (uint32_t) k, (uint32_t) (k >> 32) };
}

template <typename T> TDM_INLINE T token_hash(noise_key k, T token) { return mix32(mix32(token ^ k.a) + k.b); }

static double gumbel(uint32_t hash) { return -std::log(-std::log(((double) hash + 0.5) * 0x1p-32)); }

// The smallest hash whose noise reaches g.
static uint32_t least_hash(double g) {
    const double h = std::exp(-std::exp(-g)) * 0x1p32 - 2.0;
    return h <= 0 ? 0 : h >= 4294967295.0 ? 4294967295u : (uint32_t) h;
}

struct winners {
    double  best   = -std::numeric_limits<double>::infinity();
    double  second = -std::numeric_limits<double>::infinity();
    int32_t token  = -1;

    void offer(int32_t t, double score) {
        if (score > best || (score == best && t < token)) {
            second = best;
            best   = score;
            token  = t;
        } else if (score > second) {
            second = score;
        }
    }
};

// Which of n logits from token id `first` on may beat a score: their hash must be large enough. Returns how many it
// wrote to out.
TDM_CLONES static int32_t contenders(const float * row, int32_t first, int32_t n, float least_logit, uint32_t least, noise_key k, int32_t * out) {
    int32_t count = 0, i = 0;
    words   token = { 0, 1, 2, 3, 4, 5, 6, 7 };
    token += (uint32_t) first;
    for (; i + 8 <= n; i += 8, token += 8u) {
        const ints hit = (token_hash(k, token) >= least) & (load(row + i) >= least_logit);
        if (none(hit)) continue;
        for (int j = 0; j < 8; j++) {
            if (hit[j]) out[count++] = i + j;
        }
    }
    for (; i < n; i++) {
        if (row[i] >= least_logit && token_hash(k, (uint32_t) (first + i)) >= least) out[count++] = i;
    }
    return count;
}

// ---- candidates -----------------------------------------------------------------------------------------------------

struct view {
    float * row;
    int32_t n;
    int32_t blocks;
    float   max;

    int32_t length(int32_t b) const { return std::min(BLOCK, n - b * BLOCK); }
};

static bool better(const candidate & a, const candidate & b) { return a.logit > b.logit || (a.logit == b.logit && a.token < b.token); }

static void collect(tdm_sampler * s, const view & v, float least) {
    s->candidates.clear();
    int32_t at[BLOCK];
    for (int32_t b = 0; b < v.blocks; b++) {
        if (!(s->block_max[b] >= least)) continue;
        const float * row   = v.row + b * BLOCK;
        const int32_t count = at_least(row, v.length(b), least, at);
        for (int32_t i = 0; i < count; i++) s->candidates.push_back({ b * BLOCK + at[i], row[at[i]] });
    }
}

// Leaves the k best in candidates, best first. The k-th largest block maximum bounds them from below.
static void collect_best(tdm_sampler * s, const view & v, int32_t k) {
    float least = std::numeric_limits<float>::lowest();
    if (k <= v.blocks) {
        s->weight.assign(s->block_max.begin(), s->block_max.begin() + v.blocks);
        std::nth_element(s->weight.begin(), s->weight.begin() + (k - 1), s->weight.end(), std::greater<float>());
        least = s->weight[k - 1];
    }
    collect(s, v, least);
    if ((size_t) k < s->candidates.size()) {
        std::nth_element(s->candidates.begin(), s->candidates.begin() + (k - 1), s->candidates.end(), better);
        s->candidates.resize(k);
    }
    std::sort(s->candidates.begin(), s->candidates.end(), better);
}

// Cuts sorted candidates to the smallest head that holds top_p of their mass.
static void cut_mass(std::vector<candidate> & c, float top_p, double total) {
    double sum = 0;
    for (size_t i = 0; i < c.size(); i++) {
        sum += std::exp((double) c[i].logit - (double) c[0].logit);
        if (sum >= (double) top_p * total) {
            c.resize(i + 1);
            return;
        }
    }
}

static double mass_of(const std::vector<candidate> & c) {
    double sum = 0;
    for (const auto & x : c) sum += std::exp((double) x.logit - (double) c[0].logit);
    return sum;
}

// The least logit that nucleus sampling keeps, without sorting: tokens too light to matter are left out, then the bits
// of the least weight are found by halving.
static float nucleus(tdm_sampler * s, const view & v) {
    s->weight.resize(v.n);
    s->places.resize(v.n);
    float * weight = s->weight.data();
    weigh(v.row, v.n, v.max, weight);
    const double all  = heavier_sum(weight, v.n, 0.0f);
    const double goal = (double) s->params.top_p * all;
    // All tokens below this weight together hold less than what may be left out.
    float         least = (float) ((all - goal) / v.n);
    const int32_t n     = at_least(weight, v.n, least, s->places.data());
    for (int32_t i = 0; i < n; i++) weight[i] = weight[s->places[i]];
    uint32_t low, high = 0x3f800000u; // weights are 0 … 1; low holds enough mass, high + 1 doesn't
    memcpy(&low, &least, 4);
    while (low < high) {
        const uint32_t mid = low + (high - low + 1) / 2;
        memcpy(&least, &mid, 4);
        if (heavier_sum(weight, n, least) >= goal) {
            low = mid;
        } else {
            high = mid - 1;
        }
    }
    memcpy(&least, &low, 4);
    float logit = v.max;
    for (int32_t i = 0; i < n; i++) {
        if (weight[i] >= least) logit = std::min(logit, v.row[s->places[i]]);
    }
    return logit;
}

// ---- penalties ------------------------------------------------------------------------------------------------------

static void save(tdm_sampler * s, const view & v, int32_t token) {
    for (const auto & x : s->saved) {
        if (x.token == token) return;
    }
    s->saved.push_back({ token, v.row[token] });
}

static bool penalises(const tdm_sampling & h) {
    return h.window > 0 && ((h.repeat > 0 && h.repeat != 1.0f) || h.presence != 0.0f || h.frequency != 0.0f);
}

// A logit after the penalties for a token that the window holds so many times. One place for rows and candidates: a
// difference in rounding would be another token.
__attribute__((noinline)) static float penalised(float logit, int32_t times, const tdm_sampling & h) {
    if (h.repeat > 0) logit = logit > 0 ? logit / h.repeat : logit * h.repeat;
    return logit - ((float) times * h.frequency + h.presence);
}

// Finds the maxima of the blocks of changed logits again.
TDM_CLONES static void refresh(float * block_max, const float * row, int32_t n, const saved_logit * changed, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const int32_t b = changed[i].token / BLOCK;
        block_max[b] = block_maximum(row + b * BLOCK, std::min(BLOCK, n - b * BLOCK));
    }
}

// The token's bias; NULL: it has none.
static const bias_entry * bias_of(const tdm_sampler * s, int32_t token) {
    const auto at = std::lower_bound(s->bias.begin(), s->bias.end(), token, [](const bias_entry & e, int32_t t) { return e.token < t; });
    return at != s->bias.end() && at->token == token ? &*at : nullptr;
}

// Changes the logits that bias, penalties and, if `ignore`, ignored tokens touch; what was there goes into saved.
static void adjust(tdm_sampler * s, view & v, bool ignore) {
    s->saved.clear();
    for (const auto & e : s->bias) {
        if (e.token < 0 || e.token >= v.n) continue;
        s->saved.push_back({ e.token, v.row[e.token] });
        v.row[e.token] += e.value;
    }
    if (penalises(s->params)) {
        std::vector<int32_t> seen(s->window);
        std::sort(seen.begin(), seen.end());
        for (size_t i = 0, j; i < seen.size(); i = j) {
            for (j = i; j < seen.size() && seen[j] == seen[i]; j++) {
            }
            if (seen[i] < 0 || seen[i] >= v.n) continue;
            float & l = v.row[seen[i]];
            if (!bias_of(s, seen[i])) s->saved.push_back({ seen[i], l }); // seen is sorted, so each comes once
            l = penalised(l, (int32_t) (j - i), s->params);
        }
    }
    if (ignore) {
        for (const int32_t t : s->ignored) {
            if (t < 0 || t >= v.n) continue;
            save(s, v, t);
            v.row[t] = NONE;
        }
    }
    refresh(s->block_max.data(), v.row, v.n, s->saved.data(), s->saved.size());
    if (!s->saved.empty()) v.max = block_maximum(s->block_max.data(), v.blocks);
}

static void restore(const tdm_sampler * s, const view & v) {
    for (size_t i = s->saved.size(); i-- > 0;) v.row[s->saved[i].token] = s->saved[i].value;
}

// ---- draws ----------------------------------------------------------------------------------------------------------

static winners draw_greedy(const tdm_sampler * s, const view & v) {
    winners w;
    int32_t block = -1;
    for (int32_t b = 0; b < v.blocks; b++) {
        if (block < 0 || s->block_max[b] > s->block_max[block]) block = b;
    }
    for (int32_t i = 0, len = v.length(block); i < len; i++) w.offer(block * BLOCK + i, v.row[block * BLOCK + i]);
    for (int32_t b = 0; b < v.blocks; b++) {
        if (b != block && s->block_max[b] > w.second) w.second = s->block_max[b];
    }
    return w;
}

static winners draw_listed(const tdm_sampler * s, noise_key k) {
    winners w;
    for (const auto & c : s->candidates) w.offer(c.token, (double) c.logit / s->params.temperature + gumbel(token_hash(k, (uint32_t) c.token)));
    return w;
}

// Offers the tokens of one block. Only those are looked at closer whose noise can reach the runner-up so far.
static void offer_block(const tdm_sampler * s, const view & v, int32_t b, float least, noise_key k, winners & w) {
    const double t   = s->params.temperature;
    const double gap = w.second - (double) s->block_max[b] / t;
    if (gap > 22.2) return; // the largest noise that 32 bits can give is 22.18
    int32_t        at[BLOCK];
    const float *  row    = v.row + b * BLOCK;
    const uint32_t needed = std::isfinite(gap) ? least_hash(gap) : 0;
    const int32_t  count  = contenders(row, b * BLOCK, v.length(b), least, needed, k, at);
    for (int32_t i = 0; i < count; i++) {
        const int32_t token = b * BLOCK + at[i];
        if (row[at[i]] > NONE) w.offer(token, (double) row[at[i]] / t + gumbel(token_hash(k, (uint32_t) token)));
    }
}

// All tokens with at least the logit `least`, the block of the maximum first, since it gives a good bound.
static winners draw_all(const tdm_sampler * s, const view & v, float least, noise_key k) {
    winners w;
    const auto *  first = s->block_max.data();
    const int32_t best  = (int32_t) (std::max_element(first, first + v.blocks) - first);
    offer_block(s, v, best, least, k, w);
    for (int32_t b = 0; b < v.blocks; b++) {
        if (b != best && s->block_max[b] >= least) offer_block(s, v, b, least, k, w);
    }
    return w;
}

static winners draw_sampled(tdm_sampler * s, const view & v, uint32_t index) {
    const noise_key k      = key_for(s->params.key, index);
    const float     min_p  = s->params.min_p;
    const float     least  = min_p > 0 ? v.max + std::log(min_p) : std::numeric_limits<float>::lowest();
    if (s->params.top_k > 0 && s->params.top_k < v.n) {
        collect_best(s, v, s->params.top_k);
        if (s->candidates.empty()) return winners();
        if (s->params.top_p < 1.0f) cut_mass(s->candidates, s->params.top_p, mass_of(s->candidates));
        while (s->candidates.size() > 1 && s->candidates.back().logit < least) s->candidates.pop_back();
        return draw_listed(s, k);
    }
    if (s->params.top_p < 1.0f) {
        return draw_all(s, v, std::max(least, nucleus(s, v)), k);
    }
    return draw_all(s, v, least, k);
}

// The sum has a rounding error, which must not make a probability of more than 1. NaN, for nobody asked, stays NaN.
static float logprob_of(float logit, double lse) { return (float) std::min((double) logit - lse, 0.0); }

template <typename T> static void report_top(tdm_sampler * s, const view & v, int32_t top, double lse, T * out) {
    collect_best(s, v, std::min(top, (int32_t) TDM_TOP_MAX));
    out->n_top = (int32_t) s->candidates.size();
    for (int32_t i = 0; i < out->n_top; i++) {
        out->top_token[i]   = s->candidates[i].token;
        out->top_logprob[i] = logprob_of(s->candidates[i].logit, lse);
    }
}

// Finds the maxima; lse, when it isn't null, becomes the log-sum-exp of the row.
static view scan_blocks(tdm_sampler * s, float * logits, int32_t n, double * lse) {
    view v = { logits, n, (n + BLOCK - 1) / BLOCK, NONE };
    s->block_max.resize(v.blocks);
    if (lse) {
        *lse = scan(logits, n, s->block_max.data());
    } else {
        maxima(logits, n, s->block_max.data());
    }
    v.max = block_maximum(s->block_max.data(), v.blocks);
    return v;
}

static bool finish(const view & v, const winners & w, double lse, tdm_draw * out) {
    if (w.token < 0 || !std::isfinite(w.best)) return false;
    out->token   = w.token;
    out->margin  = (float) (w.best - w.second);
    out->logprob = logprob_of(v.row[w.token], lse);
    return true;
}

// Draws from a row whose blocks were scanned.
static bool draw_adjusted(tdm_sampler * s, view & v, uint32_t index, double lse, tdm_draw * out) {
    adjust(s, v, true);
    if (!(v.max > NONE) && !s->ignored.empty()) { // the mask allows only what is to be ignored
        restore(s, v);
        v = scan_blocks(s, v.row, v.n, nullptr);
        adjust(s, v, false);
    }
    winners w;
    if (std::isfinite(v.max)) w = s->params.temperature > 0 ? draw_sampled(s, v, index) : draw_greedy(s, v);
    restore(s, v);
    return finish(v, w, lse, out);
}

bool tdm_sampler_draw(tdm_sampler * s, float * logits, int32_t n, uint32_t index, tdm_draw * out) {
    if (n <= 0) return false;
    out->n_top = 0;
    double lse = NAN;
    view   v   = scan_blocks(s, logits, n, s->params.logprobs ? &lse : nullptr);
    if (!std::isfinite(v.max)) return false;
    if (s->params.top > 0) report_top(s, v, s->params.top, lse, out);
    return draw_adjusted(s, v, index, lse, out);
}

// Takes the tokens out of a row whose bit isn't set.
static void apply_mask(float * row, int32_t n, const uint32_t * mask) {
    for (int32_t at = 0; at < n; at += 32) {
        const uint32_t bits = mask[at / 32];
        const int32_t  end  = std::min(n - at, 32);
        if (bits == 0xffffffffu) continue;
        for (int32_t i = 0; i < end; i++) {
            if (!(bits >> i & 1)) row[at + i] = NONE;
        }
    }
}

bool tdm_sampler_draw_masked(tdm_sampler * s, float * logits, int32_t n, uint32_t index, const uint32_t * mask, tdm_draw * out) {
    if (n <= 0) return false;
    out->n_top = 0;
    double lse = NAN;
    if (s->params.logprobs) {
        view whole = scan_blocks(s, logits, n, &lse);
        if (!std::isfinite(whole.max)) return false;
        if (s->params.top > 0) report_top(s, whole, s->params.top, lse, out);
    }
    apply_mask(logits, n, mask);
    view v = scan_blocks(s, logits, n, nullptr);
    return draw_adjusted(s, v, index, lse, out);
}

// ---- candidates that somebody else has chosen -----------------------------------------------------------------------

// Whether bias and penalties only lower logits. Then no token that was left out rises above those that weren't.
static bool only_lowers(const tdm_sampler * s) {
    const tdm_sampling & h = s->params;
    for (const auto & e : s->bias) {
        if (!(e.value <= 0)) return false;
    }
    return !penalises(h) || ((h.repeat <= 0 || h.repeat >= 1) && h.presence >= 0 && h.frequency >= 0);
}

bool tdm_sampler_takes_candidates(const tdm_sampler * s, int32_t n_vocab, int32_t n) {
    const tdm_sampling & h = s->params;
    if (h.logprobs || h.top > 0 || !only_lowers(s)) return false;
    if (h.temperature <= 0) return true;
    if (h.top_k > 0 && h.top_k < n_vocab) return h.top_k < n;
    return h.top_p >= 1.0f && h.min_p > 0 && h.min_p <= 1;
}

// Does to candidates what adjust does to a row.
static void adjust_candidates(tdm_sampler * s) {
    std::vector<int32_t> seen;
    if (penalises(s->params)) seen = s->window;
    std::sort(seen.begin(), seen.end());
    for (auto & c : s->candidates) {
        if (const bias_entry * e = bias_of(s, c.token)) c.logit += e->value;
        const auto same = std::equal_range(seen.begin(), seen.end(), c.token);
        if (same.first != same.second) c.logit = penalised(c.logit, (int32_t) (same.second - same.first), s->params);
        if (std::find(s->ignored.begin(), s->ignored.end(), c.token) != s->ignored.end()) c.logit = NONE;
    }
}

// Fills candidates, adjusted and best first, without those that can't be drawn. No other token has more than bound,
// which is NONE when there is no other one. False: a number is none, or a token is outside of the vocabulary.
static bool take_candidates(tdm_sampler * s, const int32_t * tokens, const float * logits, int32_t n, int32_t n_vocab, float * bound) {
    s->candidates.clear();
    *bound = std::numeric_limits<float>::infinity();
    for (int32_t i = 0; i < n; i++) {
        if (!(logits[i] < std::numeric_limits<float>::infinity()) || tokens[i] < 0 || tokens[i] >= n_vocab) return false;
        *bound = std::min(*bound, logits[i]);
        s->candidates.push_back({ tokens[i], logits[i] });
    }
    adjust_candidates(s);
    std::sort(s->candidates.begin(), s->candidates.end(), better);
    while (!s->candidates.empty() && !(s->candidates.back().logit > NONE)) s->candidates.pop_back();
    return true;
}

// The two best, both of which must be among the candidates.
static bool draw_greedy_candidate(const tdm_sampler * s, float bound, winners * w) {
    const auto & c = s->candidates;
    if (bound > NONE && (c.size() < 2 || !(c[0].logit > bound) || !(c[1].logit >= bound))) return false;
    for (const auto & x : c) w->offer(x.token, x.logit);
    return true;
}

// Leaves those in candidates between which the noise decides. False: one of them may be missing.
static bool cut_candidates(tdm_sampler * s, int32_t n_vocab, float bound) {
    const tdm_sampling & h = s->params;
    auto & c = s->candidates;
    const float least = h.min_p > 0 ? c[0].logit + std::log(h.min_p) : std::numeric_limits<float>::lowest();
    if (h.top_k > 0 && h.top_k < n_vocab) {
        const bool enough = bound == NONE || (c.size() >= (size_t) h.top_k && c[h.top_k - 1].logit > bound);
        if (!enough) return false;
        if (c.size() > (size_t) h.top_k) c.resize(h.top_k);
        if (h.top_p < 1.0f) cut_mass(c, h.top_p, mass_of(c));
    } else if (bound > NONE && bound >= least) {
        return false;
    }
    while (c.size() > 1 && c.back().logit < least) c.pop_back();
    return true;
}

bool tdm_sampler_draw_candidates(tdm_sampler * s, const int32_t * tokens, const float * logits, int32_t n, int32_t n_vocab, uint32_t index,
                                 tdm_draw * out) {
    float bound;
    out->n_top = 0;
    if (!take_candidates(s, tokens, logits, n, n_vocab, &bound) || s->candidates.empty()) return false;
    winners w;
    if (!(s->params.temperature > 0)) {
        if (!draw_greedy_candidate(s, bound, &w)) return false;
    } else {
        if (!cut_candidates(s, n_vocab, bound)) return false;
        w = draw_listed(s, key_for(s->params.key, index));
    }
    if (w.token < 0 || !std::isfinite(w.best)) return false;
    out->token   = w.token;
    out->margin  = (float) (w.best - w.second);
    out->logprob = NAN;
    return true;
}

// ---- known tokens ---------------------------------------------------------------------------------------------------

bool tdm_score_token(const float * logits, int32_t n, int32_t token, int32_t top, tdm_score * out) {
    if (token < 0 || token >= n) return false;
    try {
        tdm_sampler scratch = {};
        double      lse;
        // nothing below writes to the row
        const view v = scan_blocks(&scratch, const_cast<float *>(logits), n, &lse);
        if (!std::isfinite(v.max)) return false;
        out->n_top   = 0;
        out->logprob = logprob_of(logits[token], lse);
        if (top > 0) report_top(&scratch, v, top, lse, out);
        return true;
    } catch (...) {
        return false;
    }
}

// ---- create and free ------------------------------------------------------------------------------------------------

tdm_sampler * tdm_sampler_new(const tdm_sampling * params, const tdm_token_rules * rules) {
    try {
        auto s    = std::make_unique<tdm_sampler>();
        s->params = *params;
        for (int32_t i = 0; i < rules->n_bias; i++) s->bias.push_back({ rules->bias_token[i], rules->bias[i] });
        s->ignored.assign(rules->ignored, rules->ignored + rules->n_ignored);
        if (penalises(s->params)) s->window.reserve(s->params.window);
        return s.release();
    } catch (...) {
        return nullptr;
    }
}

void tdm_sampler_free(tdm_sampler * s) { delete s; }

uint64_t tdm_sampler_key(uint64_t seed, uint32_t choice) { return mix64(seed ^ mix64(0x7464ull << 32 | choice)); }

void tdm_sampler_accept(tdm_sampler * s, int32_t token) {
    if (!penalises(s->params)) return;
    if (s->window.size() < (size_t) s->params.window) {
        s->window.push_back(token);
        return;
    }
    s->window[s->next] = token;
    s->next = (s->next + 1) % s->window.size();
}
