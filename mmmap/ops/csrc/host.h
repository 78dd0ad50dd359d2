// What the native operators share: views of tensors, parameters packed by blocks of channels, and the split of the
// work over threads.
//
// The work, batch * blocks of channels, is cut into one even run per worker. Each worker owns the partial sums that it
// fills, and these are added in a fixed order, so that results depend on the number of threads only. Work that is
// done once per call uses plain loops: at the lengths of pretraining, a tensor operation costs as much as a pass over
// its elements.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "kernel_api.h"

namespace mmmap {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline const KernelSet& kernel_set() {
#if defined(__x86_64__)
  // ATen's own choice, so that ATEN_CPU_CAPABILITY works here too.
  static const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return kernels_avx512;
  if (capability == "AVX2") return kernels_avx2;
#endif
  return kernels_baseline;
}

inline const Kernels& kernels_of(at::ScalarType type) {
  return type == at::kDouble ? kernel_set().f64 : kernel_set().f32;
}

inline at::ScalarType computing_type(const Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

// The kernels read float32, float64 and bfloat16 in place; float16 is converted first.
inline Tensor readable(const Tensor& x) { return x.scalar_type() == at::kHalf ? x.to(at::kFloat) : x; }

// A result like `x` that the kernels can write; finish() makes it one of the type of `x`.
inline Tensor writable(const Tensor& x) {
  return x.scalar_type() == at::kHalf ? at::empty_like(x, x.options().dtype(at::kFloat)) : at::empty_like(x);
}

inline Tensor finish(const Tensor& result, const Tensor& x) { return result.to(x.scalar_type()); }

inline DType stored_type(const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return DType::f32;
    case at::kDouble:
      return DType::f64;
    default:
      TORCH_CHECK_TYPE(x.scalar_type() == at::kBFloat16, "mmmap native kernels: cannot read ", x.scalar_type());
      return DType::bf16;
  }
}

// (batch, rows, length), or (batch, groups, rows, length) with the groups left to the caller.
inline View view_of(const Tensor& x, bool reverse) {
  const int64_t length = x.size(-1), step = x.stride(-1);
  char* data = static_cast<char*>(x.data_ptr());
  if (reverse) data += (length - 1) * step * x.element_size();
  return {data, x.stride(0), x.stride(-2), reverse ? -step : step, stored_type(x)};
}

inline GroupView group_view_of(const Tensor& x, bool reverse) { return {view_of(x, reverse), x.stride(1)}; }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class F>
void with_type(at::ScalarType type, F&& f) {
  type == at::kDouble ? f(double{}) : f(float{});
}

// (rows, columns) <-> (groups, blocks of a group, columns, lanes), missing lanes filled with zeros.
struct Packing {
  int64_t rows, groups, group_blocks, lanes;

  Packing(int64_t rows, int64_t groups, int64_t lanes)
      : rows(rows), groups(groups), group_blocks(ceil_div(rows / groups, lanes)), lanes(lanes) {}

  int64_t blocks() const { return groups * group_blocks; }

  // Where a row begins in the packed array, in units of columns * lanes and lanes.
  template <class F>
  void each_row(F&& f) const {
    const int64_t per_group = rows / groups;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t within = row % per_group;
      f(row, row / per_group * group_blocks + within / lanes, within % lanes);
    }
  }

  Tensor pack(const OptionalTensor& x, int64_t columns, at::TensorOptions options, double scale = 1.0) const {
    const bool whole = x && rows == blocks() * lanes;
    const Tensor packed = whole ? at::empty({blocks(), columns, lanes}, options) : at::zeros({blocks(), columns, lanes}, options);
    if (!x) return packed;
    const Tensor value = x->scalar_type() == packed.scalar_type() ? *x : x->to(packed.scalar_type());
    const int64_t row_step = value.stride(0), column_step = value.dim() > 1 ? value.stride(1) : 0;
    with_type(packed.scalar_type(), [&](auto real) {
      using Real = decltype(real);
      const Real* from = value.data_ptr<Real>();
      Real* to = packed.data_ptr<Real>();
      each_row([&](int64_t row, int64_t block, int64_t lane) {
        for (int64_t i = 0; i < columns; ++i)
          to[(block * columns + i) * lanes + lane] = from[row * row_step + i * column_step] * Real(scale);
      });
    });
    return packed;
  }

  // The sum of what the workers hold, (workers, blocks, columns, lanes), as the gradient of `like`.
  Tensor total(const Tensor& partial, const OptionalTensor& like, at::TensorOptions options) const {
    if (!like) return at::empty({0}, options);
    const int64_t workers = partial.size(0), columns = partial.size(2), whole = partial.numel() / workers;
    const Tensor sum = at::empty(like->sizes(), partial.options());
    with_type(partial.scalar_type(), [&](auto real) {
      using Real = decltype(real);
      Real *from = partial.data_ptr<Real>(), *to = sum.data_ptr<Real>();
      for (int64_t w = 1; w < workers; ++w)
        for (int64_t i = 0; i < whole; ++i) from[i] += from[w * whole + i];
      each_row([&](int64_t row, int64_t block, int64_t lane) {
        for (int64_t i = 0; i < columns; ++i) to[row * columns + i] = from[(block * columns + i) * lanes + lane];
      });
    });
    if (like->is_contiguous() && like->scalar_type() == sum.scalar_type()) return sum;
    return at::empty_like(*like).copy_(sum);
  }
};

// An even split of `items` over at most the threads there are; small problems stay on one.
struct Split {
  int64_t items, workers;

  Split(int64_t items, int64_t operations) : items(items) {
    const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
    workers = std::max<int64_t>(1, std::min({threads, items, operations / 8192}));
  }

  int64_t begin(int64_t worker) const { return items * worker / workers; }
};

template <class Problem>
void run(const Pass<Problem>& pass, const Problem& problem, const Split& split) {
  int64_t bytes = 0;
  for (int64_t i = 0; i < split.workers; ++i)
    bytes = std::max(bytes, pass.scratch_bytes(problem, {split.begin(i), split.begin(i + 1), i, nullptr}));
  bytes = ceil_div(bytes, 128) * 128;  // no two workers share a cache line
  const Tensor scratch = at::empty({split.workers * bytes}, at::kByte);
  char* base = static_cast<char*>(scratch.data_ptr());
  at::parallel_for(0, split.workers, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) pass.run(problem, {split.begin(i), split.begin(i + 1), i, base + i * bytes});
  });
}

}  // namespace mmmap
