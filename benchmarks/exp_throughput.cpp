// SPDX-FileCopyrightText: 2026 The remamber_hf authors
// SPDX-License-Identifier: Apache-2.0
// How fast the scan's own exp and softplus run when nothing else is to do: scan.py compiles this with the flags of the
// library in use and calls it on buffers in the first-level cache. Part of the bound that the scan is compared with.

#include "../remamber_hf/csrc/scan.cpp"

template <typename Operation>
static void repeat(float* values, int64_t size, int64_t rounds, Operation operation) {
    for (int64_t round = 0; round < rounds; ++round) {
        for (int64_t i = 0; i < size; i += CHAINS * LANES) store(values + size + i, operation(load_pack(values + i)));
        __asm__ __volatile__("" : : "r"(values) : "memory");  // so that no round is left out
    }
}

// `values`: `size` inputs, then room for as many outputs; `size` is a multiple of 64.
extern "C" __attribute__((visibility("default"))) void time_exp(float* values, int64_t size, int64_t rounds) {
    repeat(values, size, rounds, [](Pack x) { return exp(x); });
}

extern "C" __attribute__((visibility("default"))) void time_softplus(float* values, int64_t size, int64_t rounds) {
    repeat(values, size, rounds, [](Pack x) { return softplus<false>(x, nullptr); });
}
