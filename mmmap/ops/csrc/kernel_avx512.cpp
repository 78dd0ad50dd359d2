// Kernels for x86-64 with AVX-512 (F, BW, DQ, VL).
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#endif
#define MMMAP_BYTES 64
#define MMMAP_KERNELS kernels_avx512
#include "kernel.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
