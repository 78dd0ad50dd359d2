// The native operators: tensors in, work split over threads, tensors out. The arithmetic is in kernel_*.h.
//
// The work, batch * blocks of channels, is cut into one even run per worker. Each worker owns the partial sums that it
// fills, and these are added in a fixed order, so that results depend on the number of threads only.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <vector>

#include "kernel_api.h"

namespace mmmap {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

const KernelSet& kernel_set() {
#if defined(__x86_64__)
  // ATen's own choice, so that ATEN_CPU_CAPABILITY works here too.
  static const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return kernels_avx512;
  if (capability == "AVX2") return kernels_avx2;
#endif
  return kernels_baseline;
}

const Kernels& kernels_of(at::ScalarType type) {
  return type == at::kDouble ? kernel_set().f64 : kernel_set().f32;
}

at::ScalarType computing_type(const Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

// The kernels read float32, float64 and bfloat16 where they lie; float16 is widened.
Tensor readable(const Tensor& x) { return x.scalar_type() == at::kHalf ? x.to(at::kFloat) : x; }

// A result like `x` that the kernels can write; finish() makes it one of the type of `x`.
Tensor writable(const Tensor& x) {
  return x.scalar_type() == at::kHalf ? at::empty_like(x, x.options().dtype(at::kFloat)) : at::empty_like(x);
}

Tensor finish(const Tensor& result, const Tensor& x) { return result.to(x.scalar_type()); }

DType stored_type(const Tensor& x) {
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
View view_of(const Tensor& x, bool reverse) {
  const int64_t length = x.size(-1), step = x.stride(-1);
  char* data = static_cast<char*>(x.data_ptr());
  if (reverse) data += (length - 1) * step * x.element_size();
  return {data, x.stride(0), x.stride(-2), reverse ? -step : step, stored_type(x)};
}

GroupView group_view_of(const Tensor& x, bool reverse) { return {view_of(x, reverse), x.stride(1)}; }

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// (channels, columns) <-> (groups, blocks of a group, columns, lanes), missing lanes filled with zeros.
struct Packing {
  int64_t channels, groups, group_blocks, lanes;

  Packing(int64_t channels, int64_t groups, int64_t lanes)
      : channels(channels), groups(groups), group_blocks(ceil_div(channels / groups, lanes)), lanes(lanes) {}

  int64_t blocks() const { return groups * group_blocks; }

  Tensor pack(const OptionalTensor& x, int64_t columns, at::TensorOptions options, double scale = 1.0) const {
    Tensor packed = at::zeros({groups, group_blocks, columns, lanes}, options);
    if (!x) return packed;
    Tensor value = x->detach().to(options.dtype()).mul(scale).view({groups, channels / groups, columns});
    value = at::constant_pad_nd(value, {0, 0, 0, group_blocks * lanes - channels / groups});
    return packed.copy_(value.view({groups, group_blocks, lanes, columns}).transpose(2, 3));
  }

  // (prefix, blocks, columns, lanes) -> (prefix, channels, columns)
  Tensor unpack(const Tensor& packed, int64_t prefix, int64_t columns) const {
    return packed.view({prefix, groups, group_blocks, columns, lanes})
        .transpose(3, 4)
        .reshape({prefix, groups, group_blocks * lanes, columns})
        .narrow(2, 0, channels / groups)
        .reshape({prefix, channels, columns});
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

// The common part of both passes of a scan. Holds the tensors that the problem points into.
struct ScanCall {
  Tensor u, delta, B, C, z;
  at::TensorOptions options;
  const Kernels& kernels;
  Packing packing;
  Tensor A, D, bias;
  Scan scan{};

  ScanCall(const Tensor& u_, const Tensor& delta_, const Tensor& A_, const Tensor& B_, const Tensor& C_,
           const OptionalTensor& D_, const OptionalTensor& z_, const OptionalTensor& bias_, bool softplus, bool reverse)
      : u(readable(u_)),
        delta(readable(delta_)),
        B(readable(B_)),
        C(readable(C_)),
        z(z_ ? readable(*z_) : Tensor()),
        options(at::TensorOptions().dtype(computing_type(u_))),
        kernels(kernels_of(computing_type(u_))),
        packing(u.size(1), B.size(1), kernels.lanes),
        A(packing.pack(A_, A_.size(1), options, 1.4426950408889634)),
        D(packing.pack(D_, 1, options)),
        bias(packing.pack(bias_, 1, options)) {
    scan.batch = u.size(0), scan.channels = u.size(1), scan.length = u.size(2);
    scan.groups = B.size(1), scan.states = B.size(2), scan.group_blocks = packing.group_blocks;
    scan.softplus = softplus, scan.reverse = reverse;
    scan.u = view_of(u, reverse), scan.delta = view_of(delta, reverse);
    scan.B = group_view_of(B, reverse), scan.C = group_view_of(C, reverse);
    if (z.defined()) scan.z = view_of(z, reverse);
    scan.A = A.data_ptr(), scan.D = D.data_ptr(), scan.bias = bias.data_ptr();
    scan.border_stride = scan.groups * ceil_div(scan.channels / scan.groups, kLanePad) * kLanePad * scan.states;
  }

  Split split() const { return {scan.batch * packing.blocks(), u.numel() * scan.states}; }

  // One kept state per border between chunks; mirrored by native.py's saved_shape.
  std::vector<int64_t> borders_shape() const {
    return {scan.batch, ceil_div(scan.length, kChunk) - 1, scan.border_stride};
  }
};

std::tuple<Tensor, Tensor, Tensor> scan_forward(const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& B,
                                                const Tensor& C, const OptionalTensor& D, const OptionalTensor& z,
                                                const OptionalTensor& bias, bool softplus, bool reverse, bool save) {
  ScanCall call(u, delta, A, B, C, D, z, bias, softplus, reverse);
  Scan& s = call.scan;
  const Tensor out = writable(u);
  s.out = view_of(out, reverse);
  const Tensor last = at::empty({s.batch, call.packing.blocks(), s.states, call.packing.lanes}, call.options);
  s.last = last.data_ptr();
  const Tensor borders = at::empty(save ? call.borders_shape() : std::vector<int64_t>{0}, call.options);
  s.borders = borders.numel() ? borders.data_ptr() : nullptr;
  run(call.kernels.scan_forward, s, call.split());
  return {finish(out, u), call.packing.unpack(last, s.batch, s.states).contiguous(), borders};
}

// Workers hold dB and dC of the batch elements that they touch in segment (batch element + worker).
Tensor sum_segments(const Tensor& segments, int64_t kind, const Split& split, int64_t blocks, const Tensor& like) {
  Tensor sum = at::empty({like.size(0), like.size(1), like.size(3), like.size(2)}, segments.options());
  const Tensor parts = segments.select(1, kind);
  int64_t done = 0;  // batch elements that have a sum already; the last of them may go on in the next worker
  for (int64_t i = 0; i < split.workers; ++i) {
    const int64_t first = split.begin(i) / blocks, last = ceil_div(split.begin(i + 1), blocks);
    const int64_t shared = done - first;
    if (shared) sum.narrow(0, first, shared).add_(parts.narrow(0, first + i, shared));
    if (last > done) sum.narrow(0, done, last - done).copy_(parts.narrow(0, done + i, last - done));
    done = last;
  }
  return at::empty_like(like).copy_(sum.transpose(2, 3));
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> scan_backward(
    const Tensor& dout_, const OptionalTensor& dlast, const Tensor& borders, const Tensor& u, const Tensor& delta,
    const Tensor& A, const Tensor& B, const Tensor& C, const OptionalTensor& D, const OptionalTensor& z,
    const OptionalTensor& bias, bool softplus, bool reverse) {
  ScanCall call(u, delta, A, B, C, D, z, bias, softplus, reverse);
  Scan& s = call.scan;
  const Packing& packing = call.packing;
  const Split split = call.split();
  const int64_t blocks = packing.blocks(), workers = split.workers;
  TORCH_CHECK_VALUE(borders.numel() == 0 ? s.length <= kChunk : borders.sizes().equals(call.borders_shape()),
                    "selective_scan: the states kept by the forward pass do not fit these inputs");
  s.borders = borders.numel() ? borders.data_ptr() : nullptr;

  const Tensor dout = readable(dout_), du = writable(u), ddelta = writable(delta);
  const Tensor dz = z ? writable(*z) : at::empty({0}, u.options());
  s.dout = view_of(dout, reverse), s.du = view_of(du, reverse), s.ddelta = view_of(ddelta, reverse);
  if (z) s.dz = view_of(dz, reverse);
  Tensor packed_dlast;
  if (dlast) {
    const Packing rows(s.batch * s.channels, s.batch * s.groups, packing.lanes);
    packed_dlast = rows.pack(dlast->reshape({s.batch * s.channels, s.states}), s.states, call.options);
    s.dlast = packed_dlast.data_ptr();
  }
  // A segment may cover some of the groups only; the others then count as zeros.
  const std::vector<int64_t> segments_shape{s.batch + workers - 1, 2, s.groups, s.length, s.states};
  const Tensor segments = s.groups > 1 ? at::zeros(segments_shape, call.options) : at::empty(segments_shape, call.options);
  const Tensor dA = at::zeros({workers, blocks, s.states, packing.lanes}, call.options);
  const Tensor dD = at::zeros({workers, blocks, 1, packing.lanes}, call.options);
  const Tensor dbias = at::zeros_like(dD);
  s.dweights = segments.data_ptr(), s.dA = dA.data_ptr(), s.dD = dD.data_ptr(), s.dbias = dbias.data_ptr();
  run(call.kernels.scan_backward, s, split);

  const auto total = [&](const Tensor& partial, const OptionalTensor& like) {
    if (!like) return at::empty({0}, u.options());
    return at::empty_like(*like).copy_(packing.unpack(partial.sum(0), 1, partial.size(2)).reshape(like->sizes()));
  };
  return {finish(du, u),
          finish(ddelta, delta),
          total(dA, A),
          sum_segments(segments, 0, split, blocks, B),
          sum_segments(segments, 1, split, blocks, C),
          total(dD, D),
          z ? finish(dz, *z) : dz,
          total(dbias, bias)};
}

struct ConvCall {
  Tensor x;
  at::TensorOptions options;
  const Kernels& kernels;
  Packing packing;
  Tensor weight, bias;
  Conv conv{};

  ConvCall(const Tensor& x_, const Tensor& weight_, const OptionalTensor& bias_, bool silu, bool reverse)
      : x(readable(x_)),
        options(at::TensorOptions().dtype(computing_type(x_))),
        kernels(kernels_of(computing_type(x_))),
        packing(x.size(1), 1, kernels.lanes),
        weight(packing.pack(weight_, weight_.size(1), options)),
        bias(packing.pack(bias_, 1, options)) {
    conv.batch = x.size(0), conv.channels = x.size(1), conv.length = x.size(2);
    conv.taps = weight_.size(1), conv.blocks = packing.blocks(), conv.silu = silu;
    conv.x = view_of(x, reverse), conv.weight = weight.data_ptr(), conv.bias = bias.data_ptr();
  }

  Split split() const { return {conv.batch * conv.blocks, x.numel() * conv.taps}; }
};

Tensor conv_forward(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, bool silu, bool reverse) {
  ConvCall call(x, weight, bias, silu, reverse);
  const Tensor out = writable(x);
  call.conv.out = view_of(out, reverse);
  run(call.kernels.conv_forward, call.conv, call.split());
  return finish(out, x);
}

std::tuple<Tensor, Tensor, Tensor> conv_backward(const Tensor& dout_, const Tensor& x, const Tensor& weight,
                                                 const OptionalTensor& bias, bool silu, bool reverse) {
  ConvCall call(x, weight, bias, silu, reverse);
  Conv& c = call.conv;
  const Split split = call.split();
  const Tensor dout = readable(dout_), dx = writable(x);
  c.dout = view_of(dout, reverse), c.dx = view_of(dx, reverse);
  const Tensor dweight = at::zeros({split.workers, c.blocks, c.taps, call.packing.lanes}, call.options);
  const Tensor dbias = at::zeros({split.workers, c.blocks, 1, call.packing.lanes}, call.options);
  c.dweight = dweight.data_ptr(), c.dbias = dbias.data_ptr();
  run(call.kernels.conv_backward, c, split);
  const auto total = [&](const Tensor& partial, const OptionalTensor& like) {
    if (!like) return at::empty({0}, x.options());
    return at::empty_like(*like).copy_(call.packing.unpack(partial.sum(0), 1, partial.size(2)).reshape(like->sizes()));
  };
  return {finish(dx, x), total(dweight, weight), total(dbias, bias)};
}

int64_t chunk() { return kChunk; }
int64_t lane_pad() { return kLanePad; }

}  // namespace

TORCH_LIBRARY(mmmap_native, m) {
  m.def(
      "scan_forward(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
      "bool delta_softplus, bool reverse, bool save) -> (Tensor, Tensor, Tensor)");
  m.def(
      "scan_backward(Tensor dout, Tensor? dlast, Tensor borders, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
      "Tensor? D, Tensor? z, Tensor? delta_bias, bool delta_softplus, bool reverse) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("conv_forward(Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse) -> Tensor");
  m.def(
      "conv_backward(Tensor dout, Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse) "
      "-> (Tensor, Tensor, Tensor)");
  m.def("chunk() -> int", chunk);
  m.def("lane_pad() -> int", lane_pad);
}

TORCH_LIBRARY_IMPL(mmmap_native, CPU, m) {
  m.impl("scan_forward", scan_forward);
  m.impl("scan_backward", scan_backward);
  m.impl("conv_forward", conv_forward);
  m.impl("conv_backward", conv_backward);
}

}  // namespace mmmap
