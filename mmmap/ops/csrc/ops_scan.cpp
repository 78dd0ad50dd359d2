// The scan operators: tensors in, work split over threads, tensors out. The arithmetic is in kernel_*.h.

#include "host.h"

namespace mmmap {
namespace {

// The arguments of one scan.
struct ScanInputs {
  Tensor u, delta, A, B, C;
  OptionalTensor D, z, bias;
  bool softplus, reverse;
};

// The common part of both passes of a scan. Holds the tensors that the problem points into.
struct ScanCall {
  Tensor u, delta, B, C, z;
  at::TensorOptions options;
  const Kernels& kernels;
  Packing packing;
  Tensor A, D, bias;
  Scan scan{};

  explicit ScanCall(const ScanInputs& in)
      : u(readable(in.u)),
        delta(readable(in.delta)),
        B(readable(in.B)),
        C(readable(in.C)),
        z(in.z ? readable(*in.z) : Tensor()),
        options(at::TensorOptions().dtype(computing_type(in.u))),
        kernels(kernels_of(computing_type(in.u))),
        packing(u.size(1), B.size(1), kernels.lanes),
        A(packing.pack(in.A, in.A.size(1), options, 1.4426950408889634)),
        D(packing.pack(in.D, 1, options)),
        bias(packing.pack(in.bias, 1, options)) {
    const bool reverse = in.reverse;
    scan.batch = u.size(0), scan.channels = u.size(1), scan.length = u.size(2);
    scan.groups = B.size(1), scan.states = B.size(2), scan.group_blocks = packing.group_blocks;
    scan.softplus = in.softplus, scan.reverse = reverse;
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

  void set_borders(const Tensor& borders) {
    TORCH_CHECK_VALUE(borders.numel() == 0 ? scan.length <= kChunk : borders.sizes().equals(borders_shape()),
                      "selective_scan: the states kept by the forward pass do not fit these inputs");
    scan.borders = borders.numel() ? borders.data_ptr() : nullptr;
  }
};

std::tuple<Tensor, Tensor, Tensor> scan_forward(const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& B,
                                                const Tensor& C, const OptionalTensor& D, const OptionalTensor& z,
                                                const OptionalTensor& bias, bool softplus, bool reverse, bool save) {
  ScanCall call({u, delta, A, B, C, D, z, bias, softplus, reverse});
  Scan& s = call.scan;
  const Tensor out = writable(u);
  s.out = view_of(out, reverse);
  const Tensor last = at::empty({s.batch, s.channels, s.states}, call.options);
  s.last = last.data_ptr();
  const Tensor borders = at::empty(save ? call.borders_shape() : std::vector<int64_t>{0}, call.options);
  s.borders = borders.numel() ? borders.data_ptr() : nullptr;
  run(call.kernels.scan_forward, s, call.split());
  return {finish(out, u), last, borders};
}

// Add up what the workers hold of dB or dC: the batch elements that a worker touches lie in segment (batch element +
// worker), each (groups, length, states). Two workers share at most one batch element.
void sum_segments(const Tensor& segments, int64_t kind, const Split& split, int64_t blocks, const Tensor& grad) {
  const int64_t G = grad.size(1), N = grad.size(2), L = grad.size(3), all = G * L * N;
  const Tensor sum = grad.scalar_type() == segments.scalar_type() ? grad : at::empty_like(grad, segments.options());
  with_type(segments.scalar_type(), [&](auto real) {
    using Real = decltype(real);
    Real *parts = segments.data_ptr<Real>(), *to = sum.data_ptr<Real>();
    const auto sum_of = [&](int64_t b) {
      Real* whole = nullptr;
      for (int64_t w = 0; w < split.workers; ++w) {
        if (split.begin(w + 1) <= b * blocks || split.begin(w) >= (b + 1) * blocks) continue;
        Real* part = parts + ((b + w) * 2 + kind) * all;
        if (whole == nullptr)
          whole = part;
        else
          for (int64_t i = 0; i < all; ++i) whole[i] += part[i];
      }
      for (int64_t g = 0; g < G; ++g)
        for (int64_t t = 0; t < L; ++t)
          for (int64_t n = 0; n < N; ++n)
            to[b * sum.stride(0) + g * sum.stride(1) + n * sum.stride(2) + t * sum.stride(3)] = whole[(g * L + t) * N + n];
    };
    at::parallel_for(0, grad.size(0), std::max<int64_t>(1, 32768 / all), [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) sum_of(b);
    });
  });
  if (!grad.is_same(sum)) grad.copy_(sum);
}

// The gradients of one scan. The caller has set what belongs to the output (dout, z, y, dz, scale) and gives the memory
// for the gradients of u, delta, B and C, which may be part of larger tensors.
struct ScanGradients {
  Tensor dA, dD, dbias;

  ScanGradients(const ScanInputs& in, ScanCall& call, const OptionalTensor& dlast, const Tensor& du,
                const Tensor& ddelta, const Tensor& dB, const Tensor& dC) {
    Scan& s = call.scan;
    const Packing& packing = call.packing;
    const Split split = call.split();
    const int64_t blocks = packing.blocks(), workers = split.workers;
    const auto stored = [](const Tensor& x) { return x.scalar_type() == at::kHalf ? writable(x) : x; };
    const Tensor stored_du = stored(du), stored_ddelta = stored(ddelta);
    s.du = view_of(stored_du, in.reverse), s.ddelta = view_of(stored_ddelta, in.reverse);
    Tensor packed_dlast;
    if (dlast) {
      const Packing rows(s.batch * s.channels, s.batch * s.groups, packing.lanes);
      packed_dlast = rows.pack(dlast->reshape({s.batch * s.channels, s.states}), s.states, call.options);
      s.dlast = packed_dlast.data_ptr();
    }
    // A segment may cover some of the groups only; the others then count as zeros.
    const std::vector<int64_t> shape{s.batch + workers - 1, 2, s.groups, s.length, s.states};
    const Tensor segments = s.groups > 1 ? at::zeros(shape, call.options) : at::empty(shape, call.options);
    const Tensor sum_A = at::zeros({workers, blocks, s.states, packing.lanes}, call.options);
    const Tensor sum_D = at::zeros({workers, blocks, 1, packing.lanes}, call.options);
    const Tensor sum_bias = at::zeros({workers, blocks, 1, packing.lanes}, call.options);
    s.dweights = segments.data_ptr(), s.dA = sum_A.data_ptr(), s.dD = sum_D.data_ptr(), s.dbias = sum_bias.data_ptr();
    run(call.kernels.scan_backward, s, split);
    if (!stored_du.is_same(du)) du.copy_(stored_du);
    if (!stored_ddelta.is_same(ddelta)) ddelta.copy_(stored_ddelta);
    sum_segments(segments, 0, split, blocks, dB), sum_segments(segments, 1, split, blocks, dC);
    dA = packing.total(sum_A, in.A, in.u.options());
    dD = packing.total(sum_D, in.D, in.u.options()), dbias = packing.total(sum_bias, in.bias, in.u.options());
  }
};

using EightTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

EightTensors scan_backward(const Tensor& dout_, const OptionalTensor& dlast, const Tensor& borders, const Tensor& u,
                           const Tensor& delta, const Tensor& A, const Tensor& B, const Tensor& C,
                           const OptionalTensor& D, const OptionalTensor& z, const OptionalTensor& bias, bool softplus,
                           bool reverse) {
  const ScanInputs inputs{u, delta, A, B, C, D, z, bias, softplus, reverse};
  ScanCall call(inputs);
  call.set_borders(borders);
  const Tensor dout = readable(dout_), dz = z ? writable(*z) : at::empty({0}, u.options());
  call.scan.dout = view_of(dout, reverse);
  if (z) call.scan.dz = view_of(dz, reverse);
  const Tensor du = at::empty_like(u), ddelta = at::empty_like(delta), dB = at::empty_like(B), dC = at::empty_like(C);
  const ScanGradients grads(inputs, call, dlast, du, ddelta, dB, dC);
  return {du, ddelta, grads.dA, dB, dC, grads.dD, z ? finish(dz, *z) : dz, grads.dbias};
}

// The scan of one direction, its gate left to the caller.
ScanInputs one_direction(int64_t i, const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& B,
                         const Tensor& C, const OptionalTensor& D, const OptionalTensor& bias, bool softplus) {
  const auto part = [&](const OptionalTensor& x) { return x ? OptionalTensor(x->select(0, i)) : std::nullopt; };
  return {u.select(1, i),    delta.select(1, i), A.select(0, i), B.narrow(1, i, 1), C.narrow(1, i, 1), part(D),
          std::nullopt,      part(bias),         softplus,       i == 1};
}

// The second direction adds to the outputs of the first one and gates the sum.
std::tuple<Tensor, Tensor, Tensor> bidirectional_forward(const Tensor& u, const Tensor& delta, const Tensor& A,
                                                         const Tensor& B, const Tensor& C, const OptionalTensor& D,
                                                         const OptionalTensor& z_, const OptionalTensor& bias,
                                                         bool softplus, bool save) {
  const Tensor first = u.select(1, 0), out = writable(first), z = z_ ? readable(*z_) : Tensor();
  const bool keep = save && z_;
  const bool computing = first.scalar_type() == computing_type(first);
  const Tensor partial = at::empty_like(out, out.options().dtype(computing_type(first)));
  const Tensor y = !keep ? at::empty({0}, u.options()) : computing ? partial : writable(first);
  Tensor borders;
  for (int64_t i = 0; i < 2; ++i) {
    ScanCall call(one_direction(i, u, delta, A, B, C, D, bias, softplus));
    Scan& s = call.scan;
    if (i == 0) {
      auto shape = call.borders_shape();
      shape.insert(shape.begin(), 2);
      borders = at::empty(save ? shape : std::vector<int64_t>{0}, call.options);
    }
    s.borders = borders.numel() ? borders.select(0, i).data_ptr() : nullptr;
    if (i == 0) {
      s.out = view_of(partial, false);
    } else {
      s.base = view_of(partial, true), s.out = view_of(out, true), s.scale = 0.5;
      if (z_) s.z = view_of(z, true);
      if (keep) s.y = view_of(y, true);
    }
    run(call.kernels.scan_forward, s, call.split());
  }
  return {finish(out, first), borders, keep ? finish(y, first) : y};
}

EightTensors bidirectional_backward(const Tensor& dout_, const Tensor& borders, const Tensor& y_, const Tensor& u,
                                    const Tensor& delta, const Tensor& A, const Tensor& B, const Tensor& C,
                                    const OptionalTensor& D, const OptionalTensor& z_, const OptionalTensor& bias,
                                    bool softplus) {
  const Tensor dout = readable(dout_), y = readable(y_), z = z_ ? readable(*z_) : Tensor();
  const Tensor dz = z_ ? writable(*z_) : at::empty({0}, u.options());
  const Tensor du = at::empty_like(u), ddelta = at::empty_like(delta), dB = at::empty_like(B), dC = at::empty_like(C);
  std::vector<ScanGradients> grads;
  for (int64_t i = 0; i < 2; ++i) {
    const ScanInputs inputs = one_direction(i, u, delta, A, B, C, D, bias, softplus);
    ScanCall call(inputs);
    Scan& s = call.scan;
    call.set_borders(borders.select(0, i));
    s.scale = 0.5, s.dout = view_of(dout, inputs.reverse);
    if (z_) {
      s.z = view_of(z, inputs.reverse), s.y = view_of(y, inputs.reverse);
      if (i == 0) s.dz = view_of(dz, false);
    }
    grads.emplace_back(inputs, call, std::nullopt, du.select(1, i), ddelta.select(1, i), dB.narrow(1, i, 1),
                       dC.narrow(1, i, 1));
  }
  const auto join = [&](Tensor ScanGradients::*part, const OptionalTensor& like) {
    if (!like) return at::empty({0}, u.options());
    const Tensor joined = at::empty_like(*like);
    for (int64_t i = 0; i < 2; ++i) joined.select(0, i).copy_(grads[i].*part);
    return joined;
  };
  return {du, ddelta, join(&ScanGradients::dA, A), dB, dC, join(&ScanGradients::dD, D), z_ ? finish(dz, *z_) : dz,
          join(&ScanGradients::dbias, bias)};
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
  m.def(
      "bidirectional_forward(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
      "Tensor? delta_bias, bool delta_softplus, bool save) -> (Tensor, Tensor, Tensor)");
  m.def(
      "bidirectional_backward(Tensor dout, Tensor borders, Tensor y, Tensor u, Tensor delta, Tensor A, Tensor B, "
      "Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, bool delta_softplus) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("conv_forward(Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse) -> Tensor");
  m.def(
      "conv_backward(Tensor dout, Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse) "
      "-> (Tensor, Tensor, Tensor)");
  m.def("bidirectional_conv_forward(Tensor(a!) out, Tensor x, Tensor weight, Tensor? bias, bool silu) -> ()");
  m.def(
      "bidirectional_conv_backward(Tensor dout, Tensor x, Tensor weight, Tensor? bias, bool silu) "
      "-> (Tensor, Tensor, Tensor)");
  // To be raised with each change that the Python files must know of; mirrored by native.py.
  m.def("interface() -> int", [] { return int64_t(2); });
  m.def("chunk() -> int", chunk);
  m.def("lane_pad() -> int", lane_pad);
}

TORCH_LIBRARY_IMPL(mmmap_native, CPU, m) {
  m.impl("scan_forward", scan_forward);
  m.impl("scan_backward", scan_backward);
  m.impl("bidirectional_forward", bidirectional_forward);
  m.impl("bidirectional_backward", bidirectional_backward);
}

}  // namespace mmmap
