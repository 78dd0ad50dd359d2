// The operators of the causal depthwise convolution: tensors in, work split over threads, tensors out.

#include "host.h"

namespace mmmap {
namespace {

// The common part of both passes of a convolution. Holds the tensors that the problem points into.
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

  // Runs the backward pass, dx set by the caller; the gradients of weight and bias.
  std::pair<Tensor, Tensor> backward(const Tensor& weight_, const OptionalTensor& bias_) {
    const Split work = split();
    const Tensor sum_weight = at::zeros({work.workers, conv.blocks, conv.taps, packing.lanes}, options);
    const Tensor sum_bias = at::zeros({work.workers, conv.blocks, 1, packing.lanes}, options);
    conv.dweight = sum_weight.data_ptr(), conv.dbias = sum_bias.data_ptr();
    run(kernels.conv_backward, conv, work);
    return {packing.total(sum_weight, weight_, x.options()), packing.total(sum_bias, bias_, x.options())};
  }
};

OptionalTensor part(const OptionalTensor& x, int64_t i) { return x ? OptionalTensor(x->select(0, i)) : std::nullopt; }

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
  const Tensor dout = readable(dout_), dx = writable(x);
  call.conv.dout = view_of(dout, reverse), call.conv.dx = view_of(dx, reverse);
  const auto [dweight, dbias] = call.backward(weight, bias);
  return {finish(dx, x), dweight, dbias};
}

void bidirectional_conv_forward(const Tensor& out, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                                bool silu) {
  for (int64_t i = 0; i < 2; ++i) {
    ConvCall call(x, weight.select(0, i), part(bias, i), silu, i == 1);
    const Tensor to = out.select(1, i), stored = out.scalar_type() == at::kHalf ? writable(to) : to;
    call.conv.out = view_of(stored, i == 1);
    run(call.kernels.conv_forward, call.conv, call.split());
    if (!stored.is_same(to)) to.copy_(stored);
  }
}

// The second direction adds to the dx of the first one.
std::tuple<Tensor, Tensor, Tensor> bidirectional_conv_backward(const Tensor& dout_, const Tensor& x,
                                                               const Tensor& weight, const OptionalTensor& bias,
                                                               bool silu) {
  const Tensor dout = readable(dout_), dx = writable(x);
  const Tensor partial = at::empty_like(dx, dx.options().dtype(computing_type(x)));
  const Tensor dweight = at::empty_like(weight), dbias = bias ? at::empty_like(*bias) : at::empty({0}, x.options());
  for (int64_t i = 0; i < 2; ++i) {
    ConvCall call(x, weight.select(0, i), part(bias, i), silu, i == 1);
    call.conv.dout = view_of(dout.select(1, i), i == 1);
    call.conv.dx = view_of(i == 0 ? partial : dx, i == 1);
    if (i == 1) call.conv.dx_base = view_of(partial, true);
    const auto [dweight_i, dbias_i] = call.backward(weight.select(0, i), part(bias, i));
    dweight.select(0, i).copy_(dweight_i);
    if (bias) dbias.select(0, i).copy_(dbias_i);
  }
  return {finish(dx, x), dweight, dbias};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmmap_native, CPU, m) {
  m.impl("conv_forward", conv_forward);
  m.impl("conv_backward", conv_backward);
  m.impl("bidirectional_conv_forward", bidirectional_conv_forward);
  m.impl("bidirectional_conv_backward", bidirectional_conv_backward);
}

}  // namespace mmmap
