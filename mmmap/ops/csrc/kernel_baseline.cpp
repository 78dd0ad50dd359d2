// Kernels for every machine: 16-byte vectors (SSE2, NEON).
#define MMMAP_BYTES 16
#define MMMAP_KERNELS kernels_baseline
#include "kernel.h"
