// SPDX-FileCopyrightText: 2026 The remamber_hf authors
// SPDX-License-Identifier: Apache-2.0

// Vectors of neighbouring channels, exp and softplus of them, and the floating-point mode. The width of a vector follows
// from the compiler's flags. It needs GCC or Clang, for their vector types, and must not be compiled with -ffast-math.

#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// ------------------------------------------------------------------------------------------------------- vectors

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t HalfWords __attribute__((vector_size(2 * LANES)));
typedef uint16_t BFloat16;

INLINE Floats load(const float* source) {
    Floats vector;
    std::memcpy(&vector, source, sizeof vector);
    return vector;
}

INLINE Floats load(const BFloat16* source) {
    HalfWords halves;
    std::memcpy(&halves, source, sizeof halves);
    return (Floats)(__builtin_convertvector(halves, Words) << 16);
}

INLINE void store(float* target, Floats vector) { std::memcpy(target, &vector, sizeof vector); }

INLINE void add_to(float* target, Floats vector) { store(target, load(target) + vector); }

// Of the next `count` elements as many as a vector holds, zeros after them.
template <typename Element>
INLINE Floats load_some(const Element* source, int64_t count) {
    if (count >= LANES) return load(source);
    Element elements[LANES] = {};
    for (int64_t i = 0; i < count; ++i) elements[i] = source[i];
    return load(elements);
}

INLINE void store_some(float* target, Floats vector, int64_t count) {
    if (count >= LANES) return store(target, vector);
    for (int64_t i = 0; i < count; ++i) target[i] = vector[i];
}

INLINE float to_float(float value) { return value; }

INLINE float to_float(BFloat16 value) {
    const uint32_t word = (uint32_t)value << 16;
    float result;
    std::memcpy(&result, &word, sizeof result);
    return result;
}

// a0 b0 a1 b1 … of two vectors: the first half of these for HALF = 0, the second for 1.
template <int HALF, int... LANE>
INLINE Floats interleave(Floats a, Floats b, std::integer_sequence<int, LANE...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (LANE % 2 * LANES + (HALF * LANES + LANE) / 2)...);
#else
    return __builtin_shuffle(a, b, Ints{(LANE % 2 * LANES + (HALF * LANES + LANE) / 2)...});
#endif
}

// Rows to columns. Each turn takes the highest bit of an element's row to the lowest of its lane, and the highest of
// its lane to the lowest of its row; after as many turns as there are bits they have changed places.
INLINE void transpose(Floats (&rows)[LANES]) {
    constexpr auto ALL = std::make_integer_sequence<int, LANES>();
    for (int turn = 1; turn < LANES; turn *= 2) {
        Floats mixed[LANES];
        for (int i = 0; i < LANES / 2; ++i) {
            mixed[2 * i] = interleave<0>(rows[i], rows[i + LANES / 2], ALL);
            mixed[2 * i + 1] = interleave<1>(rows[i], rows[i + LANES / 2], ALL);
        }
        for (int i = 0; i < LANES; ++i) rows[i] = mixed[i];
    }
}

// The larger or the smaller of two; a NaN in b stays. Compilers do not find these instructions by themselves.
INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#elif defined(__SSE__)
    return _mm_max_ps(a, b);
#else
    return a > b ? a : b;
#endif
}

INLINE Floats smaller(Floats a, Floats b) {
#if defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_min_ps(a, b);
#elif defined(__SSE__)
    return _mm_min_ps(a, b);
#else
    return a < b ? a : b;
#endif
}

// Vectors that go through one long formula side by side: a single one would wait for the result of every operation.
constexpr int CHAINS = 4;
struct Pack {
    Floats of[CHAINS];
};

template <typename Operation>
INLINE Pack for_each_chain(Operation operation) {
    Pack result;
    for (int i = 0; i < CHAINS; ++i) result.of[i] = operation(i);
    return result;
}

INLINE Pack operator+(Pack a, Pack b) { return for_each_chain([&](int i) { return a.of[i] + b.of[i]; }); }
INLINE Pack operator+(Pack a, float b) { return for_each_chain([&](int i) { return a.of[i] + b; }); }
INLINE Pack operator-(Pack a, Pack b) { return for_each_chain([&](int i) { return a.of[i] - b.of[i]; }); }
INLINE Pack operator-(Pack a, float b) { return for_each_chain([&](int i) { return a.of[i] - b; }); }
INLINE Pack operator*(Pack a, Pack b) { return for_each_chain([&](int i) { return a.of[i] * b.of[i]; }); }
INLINE Pack operator*(Pack a, float b) { return for_each_chain([&](int i) { return a.of[i] * b; }); }
INLINE Pack operator/(Pack a, Pack b) { return for_each_chain([&](int i) { return a.of[i] / b.of[i]; }); }
INLINE Pack larger(float a, Pack b) { return for_each_chain([&](int i) { return larger(Floats{} + a, b.of[i]); }); }
INLINE Pack smaller(float a, Pack b) { return for_each_chain([&](int i) { return smaller(Floats{} + a, b.of[i]); }); }

INLINE Pack load_pack(const float* source) {
    return for_each_chain([&](int i) { return load(source + i * LANES); });
}

INLINE void store(float* target, Pack pack) {
    for (int i = 0; i < CHAINS; ++i) store(target + i * LANES, pack.of[i]);
}

// e^x to about 2 units in the last place; 0 below -87.7, infinity above 88.4. With x = n ln 2 + r and |r| <= ln 2 / 2,
// e^r is 1 + r + r^2 times a minimax polynomial of degree 4: exact where e^x nears 1, so that slow decays stay so.
INLINE Pack exp(Pack x) {
    constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;  // n times the first is exact
    constexpr float ROUND = 12582912.0f;                                 // 1.5 * 2^23: adding it rounds to an integer
    x = smaller(89.0f, larger(-88.0f, x));
    const Pack shifted = x * 1.44269504f + ROUND;
    const Pack n = shifted - ROUND;
    const Pack r = (x - n * LN2_HIGH) - n * LN2_LOW;
    Pack poly = r * 1.381459857e-3f + 8.368716984e-3f;
    poly = poly * r + 4.166838805e-2f;
    poly = poly * r + 1.666652063e-1f;
    poly = poly * r + 4.999999345e-1f;
    poly = poly * (r * r) + r + 1.0f;
    return for_each_chain([&](int i) {
        const Ints exponent = (Ints)shifted.of[i] - 0x4B400000 + 127;  // the bits of ROUND; n is in [-127, 128]
        return poly.of[i] * (Floats)(exponent << 23);
    });
}

// softplus(z) = max(z, 0) + log(1 + e^-|z|), and where asked its derivative. With t = e^-|z| and s = t / (2 + t),
// log(1 + t) is 2 artanh(s): small values keep all their digits. Above 20 it is z itself, as in PyTorch.
template <bool WithSlope>
INLINE Pack softplus(Pack z, Pack* slope) {
    const Pack t = exp(for_each_chain([&](int i) { return (Floats)((Ints)z.of[i] | INT32_MIN); }));
    const Pack s = t / (t + 2.0f);
    const Pack s2 = s * s;
    Pack poly = s2 * 1.400633571e-1f + 1.400083867e-1f;
    poly = poly * s2 + 2.001076715e-1f;
    poly = poly * s2 + 3.333320809e-1f;
    if (WithSlope)
        *slope = for_each_chain([&](int i) { return z.of[i] < 0.0f ? t.of[i] : Floats{} + 1.0f; }) / (t + 1.0f);
    return larger(0.0f, z) + (s + s) * (s2 * poly + 1.0f);
}

// ---------------------------------------------------------------------------------------------- floating-point mode

// Flushes denormals to zero in the current thread, and restores the caller's mode: a decaying state passes through
// denormals, which cost some twenty times an ordinary operation.
class FlushDenormals {
#if defined(__x86_64__) || defined(__i386__)
    unsigned saved_ = _mm_getcsr();

public:
    FlushDenormals() { _mm_setcsr(saved_ | 0x8040); }  // flush to zero, denormals are zero
    ~FlushDenormals() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
    uint64_t saved_;

public:
    FlushDenormals() {
        __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved_));
        __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_ | (uint64_t)1 << 24));
    }
    ~FlushDenormals() { __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_)); }
#else
public:
    FlushDenormals() {}
    ~FlushDenormals() {}
#endif
};

}  // namespace
