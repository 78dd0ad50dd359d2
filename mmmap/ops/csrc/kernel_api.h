// What the kernel files offer to ops_*.cpp. Plain structures only: the kernel files are compiled for instruction sets
// that the machine may lack, so no inline function of another header may be emitted from them.
#pragma once

#include <cstdint>

namespace mmmap {

// Time steps between two kept states. Each vector width divides kLanePad, to which kept states are padded.
constexpr int64_t kChunk = 32;
constexpr int64_t kLanePad = 16;

// Points in a bucket of neighbours: whole vectors, and as many as the other kernels read at once.
constexpr int64_t kBucket = 64;

enum class DType { f32, f64, bf16 };

// A (batch, rows, length) tensor: rows are channels, or states of a group. Strides in elements. A scan from the last
// position to the first is a view that starts there with a negative step.
struct View {
  void* data = nullptr;
  int64_t batch = 0, row = 0, step = 0;
  DType dtype = DType::f32;
};

// B and C have groups of rows.
struct GroupView {
  View view;
  int64_t group = 0;
};

// One scan. "Blocks" are runs of `lanes` neighbouring channels of one group, the last of a group filled up with zeros.
// Packed arrays are in the computing type and in block order: (blocks, states, lanes) or (blocks, lanes).
struct Scan {
  int64_t batch, channels, length, states, groups;
  int64_t group_blocks;  // blocks of a group
  bool softplus, reverse;
  View u, delta, z, out;  // z.data may be null
  GroupView B, C;
  const void *A, *D, *bias;  // packed; A in units of log2(e); D and bias are zeros where the caller has none
  double scale = 1;           // of the output
  View base, y;              // added before the gate, and the sum before the gate to keep; each may be null
  void* last;                // (batch, channels, states), or null
  void* borders;             // (batch, chunks - 1, border_stride), or null
  int64_t border_stride;
  // Backward pass only, where the output is not computed again for the gate if y is not null. dz.data may be null.
  View dout, du, ddelta, dz;
  const void* dlast;  // packed (batch, blocks, states, lanes), or null
  void* dweights;     // (segments, 2, groups, length, states): dB and dC of one worker in one batch element
  void *dA, *dD, *dbias;  // (workers, packed), zeros at the start
};

// Blocks begin .. end - 1 of the batch * blocks pieces of work, which worker number `worker` does.
struct Work {
  int64_t begin, end, worker;
  void* scratch;
};

struct Conv {
  int64_t batch, channels, length, taps, blocks;
  bool silu;
  View x, out;
  const void *weight, *bias;  // packed (blocks, taps, lanes) and (blocks, lanes)
  View dout, dx, dx_base;     // dx_base.data may be null, else it is added to dx
  void *dweight, *dbias;  // (workers, packed), zeros at the start
};

// Clouds are (batch, dims, padded) in the computing type, filled up with infinities.
struct Farthest {
  int64_t count, padded, dims, samples;
  const void* points;
  const int64_t* start;  // (batch,)
  int64_t* out;          // (batch, samples)
};

struct Neighbours {
  int64_t queries, padded_queries, count, padded, dims, k;
  double radius;  // of a ball query
  const void *query, *points;
  void* distance;  // (batch, queries, k), squared
  int64_t* index;  // (batch, queries, k)
  // Where the points lie in buckets of neighbours, else null: the index of each, an integer as wide as a coordinate,
  // and the lowest and the highest coordinates of each bucket (batch, 2, dims, padded_boxes).
  const void *order, *boxes;
  int64_t padded_boxes;
};

template <class Problem>
struct Pass {
  int64_t (*scratch_bytes)(const Problem&, const Work&);
  void (*run)(const Problem&, const Work&);
};

// The kernels for one computing type and one instruction set.
struct Kernels {
  int64_t lanes;
  Pass<Scan> scan_forward, scan_backward;
  Pass<Conv> conv_forward, conv_backward;
  Pass<Farthest> farthest;
  Pass<Neighbours> knn, nearest, ball;
};

struct KernelSet {
  Kernels f32, f64;
};

extern const KernelSet kernels_baseline;
#if defined(__x86_64__)
extern const KernelSet kernels_avx2;
extern const KernelSet kernels_avx512;
#endif

}  // namespace mmmap
