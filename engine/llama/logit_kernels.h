//go:build llama

// The loops over a whole row of logits, written in lanes for each instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__x86_64__) && defined(__gnu_linux__)
#define TDM_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TDM_CLONES
#endif

static const int32_t BLOCK = 256;
static const float   NONE  = -std::numeric_limits<float>::infinity();

// Eight lanes, which the compiler maps to what the clone's instruction set has.
typedef float    lanes __attribute__((vector_size(32), aligned(4)));
typedef int32_t  ints __attribute__((vector_size(32)));
typedef uint32_t words __attribute__((vector_size(32)));

#define TDM_INLINE static inline __attribute__((always_inline))
#define TDM_INLINE_MEMBER inline __attribute__((always_inline))

TDM_INLINE lanes load(const float * p) { return *(const lanes *) p; }

TDM_INLINE lanes larger(lanes a, lanes b) { return a > b ? a : b; }

static const float LOG2_E = 1.44269504f;

// 2^y for y <= 0 by a polynomial of degree 4 on the fraction, with a relative error below 6e-5.
TDM_INLINE lanes fast_exp2(lanes y) {
    const lanes magic = (lanes){} + 12582912.0f; // 1.5 * 2^23: rounds to an integer in the low bits
    y                 = larger(y, (lanes){} - 126.0f);
    const lanes whole = y + magic;
    const lanes f     = y - (whole - magic);
    const lanes p     = (((f * 0.0096181291f + 0.0555041087f) * f + 0.2402265070f) * f + 0.6931471806f) * f + 1.0f;
    return (lanes) ((ints) p + ((ints) whole << 23));
}

TDM_INLINE float largest(lanes a) {
    a = larger(a, __builtin_shuffle(a, (ints){ 4, 5, 6, 7, 0, 1, 2, 3 }));
    a = larger(a, __builtin_shuffle(a, (ints){ 2, 3, 0, 1, 6, 7, 4, 5 }));
    a = larger(a, __builtin_shuffle(a, (ints){ 1, 0, 3, 2, 5, 4, 7, 6 }));
    return a[0];
}

TDM_INLINE double total(lanes a) {
    double sum = 0;
    for (int j = 0; j < 8; j++) sum += a[j];
    return sum;
}

TDM_INLINE float block_maximum(const float * row, int32_t n) {
    int32_t i = 0;
    float   m = NONE;
    if (n >= 32) {
        lanes a = load(row), b = load(row + 8), c = load(row + 16), d = load(row + 24);
        for (i = 32; i + 32 <= n; i += 32) {
            a = larger(load(row + i), a);
            b = larger(load(row + i + 8), b);
            c = larger(load(row + i + 16), c);
            d = larger(load(row + i + 24), d);
        }
        m = largest(larger(larger(a, b), larger(c, d)));
    }
    for (; i < n; i++) m = row[i] > m ? row[i] : m;
    return m;
}

// A running sum of e^(x - max) in lanes, scaled again when the maximum grows.
struct exp_sum {
    float  max  = NONE;
    double done = 0;
    lanes  a = {}, b = {}, c = {}, d = {};

    TDM_INLINE_MEMBER void settle() {
        done += total((a + b) + (c + d));
        a = b = c = d = (lanes){};
    }

    TDM_INLINE_MEMBER void raise(float m) {
        settle();
        done *= std::exp((double) max - (double) m);
        max = m;
    }

    TDM_INLINE_MEMBER void add(const float * row, int32_t n) {
        const float top = max * LOG2_E;
        int32_t     i   = 0;
        for (; i + 32 <= n; i += 32) {
            a += fast_exp2(load(row + i) * LOG2_E - top);
            b += fast_exp2(load(row + i + 8) * LOG2_E - top);
            c += fast_exp2(load(row + i + 16) * LOG2_E - top);
            d += fast_exp2(load(row + i + 24) * LOG2_E - top);
        }
        for (; i < n; i++) done += fast_exp2((lanes){} + (row[i] * LOG2_E - top))[0];
    }
};

// Fills block_max.
TDM_CLONES static void maxima(const float * row, int32_t n, float * block_max) {
    for (int32_t b = 0, at = 0; at < n; b++, at += BLOCK) block_max[b] = block_maximum(row + at, std::min(BLOCK, n - at));
}

// Fills block_max and returns the log-sum-exp of the row. A NaN counts for nothing.
TDM_CLONES static double scan(const float * row, int32_t n, float * block_max) {
    exp_sum sum;
    for (int32_t b = 0, at = 0; at < n; b++, at += BLOCK) {
        const int32_t len = std::min(BLOCK, n - at);
        const float   m   = block_maximum(row + at, len);
        block_max[b] = m;
        if (m > sum.max) sum.raise(m);
        if (m > sum.max - 30.0f) sum.add(row + at, len); // below that a block adds less than 256 * 1e-13
        if (b % 32 == 31) sum.settle(); // before single precision runs out
    }
    sum.settle();
    return (double) sum.max + std::log(sum.done);
}

TDM_INLINE bool none(ints hit) {
    typedef int64_t pairs __attribute__((vector_size(32)));
    const pairs any = (pairs) hit;
    return (any[0] | any[1] | any[2] | any[3]) == 0;
}

// Weights relative to the maximum, rounded up to whole lanes; 0 for what is forbidden.
TDM_CLONES static void weigh(const float * row, int32_t n, float max, float * weight) {
    int32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const lanes x = load(row + i);
        *(lanes *) (weight + i) = x > NONE ? fast_exp2((x - max) * LOG2_E) : (lanes){};
    }
    for (; i < n; i++) weight[i] = row[i] > NONE ? fast_exp2((lanes){} + (row[i] - max) * LOG2_E)[0] : 0.0f;
}

TDM_CLONES static double heavier_sum(const float * weight, int32_t n, float least) {
    double sum = 0;
    for (int32_t at = 0; at < n; at += BLOCK) {
        const int32_t len = std::min(BLOCK, n - at);
        lanes   a = {}, b = {};
        int32_t i = at;
        for (; i + 16 <= at + len; i += 16) {
            const lanes x = load(weight + i), y = load(weight + i + 8);
            a += x >= least ? x : (lanes){};
            b += y >= least ? y : (lanes){};
        }
        for (; i < at + len; i++) sum += weight[i] >= least ? weight[i] : 0.0f;
        sum += total(a + b);
    }
    return sum;
}

// Writes the places of the numbers that are at least `least` and above NONE; returns how many.
TDM_CLONES static int32_t at_least(const float * row, int32_t n, float least, int32_t * out) {
    int32_t count = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        const ints hit = load(row + i) >= least;
        if (none(hit)) continue;
        for (int j = 0; j < 8; j++) {
            if (hit[j] && row[i + j] > NONE) out[count++] = i + j;
        }
    }
    for (; i < n; i++) {
        if (row[i] >= least && row[i] > NONE) out[count++] = i;
    }
    return count;
}
