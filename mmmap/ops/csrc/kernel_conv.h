// The causal depthwise convolution, forward and backward. Included by kernel.h alone, inside an anonymous namespace.
//
// Tiles carry the taps - 1 steps of context that the convolution needs before (forward) or after (backward) a chunk.

template <class Real>
MMMAP_INLINE int64_t conv_channels(const Conv& c, int64_t block) {
  const int64_t left = c.channels - block * Vec<Real>::lanes;
  return left < Vec<Real>::lanes ? left : Vec<Real>::lanes;
}

// x from step start - (taps - 1) on, zeros before step 0.
template <class Real>
MMMAP_INLINE void load_with_past(const Conv& c, const View& v, int64_t b, int64_t block, int64_t start, int64_t steps,
                                 V<Real>* tile) {
  const int64_t past = c.taps - 1, missing = start < past ? past - start : 0;
  for (int64_t i = 0; i < missing; ++i) tile[i] = V<Real>{};
  load_tile<Real>(v, b, block * Vec<Real>::lanes, conv_channels<Real>(c, block), start - past + missing,
                  steps + past - missing, tile + missing);
}

template <class Real, int K>
MMMAP_INLINE void convolve(int64_t steps, int64_t taps, const V<Real>* x, const V<Real>* weight, V<Real> bias,
                           V<Real>* y) {
  const int64_t count = K ? K : taps;
  for (int64_t t = 0; t < steps; ++t) {
    V<Real> sum = bias;
    for (int64_t k = 0; k < count; ++k) sum += weight[k] * x[t + k];
    y[t] = sum;
  }
}

template <class Real>
MMMAP_INLINE void convolve_any(int64_t steps, int64_t taps, const V<Real>* x, const V<Real>* weight, V<Real> bias,
                               V<Real>* y) {
  if (taps == 4)
    convolve<Real, 4>(steps, taps, x, weight, bias, y);
  else
    convolve<Real, 0>(steps, taps, x, weight, bias, y);
}

template <class Real>
void conv_forward(const Conv& c, const Work& w) {
  Arena arena{static_cast<char*>(w.scratch)};
  auto* x = arena.take<V<Real>>(kChunk + c.taps - 1);
  auto* y = arena.take<V<Real>>(kChunk);
  for (int64_t item = w.begin; item < w.end;) {
    const Segment seg = segment_at(item, w.end, c.blocks);
    for (int64_t start = 0; start < c.length; start += kChunk) {
      const int64_t steps = c.length - start < kChunk ? c.length - start : kChunk;
      for (int64_t block = seg.first; block < seg.last; ++block) {
        load_with_past<Real>(c, c.x, seg.b, block, start, steps, x);
        convolve_any<Real>(steps, c.taps, x, static_cast<const V<Real>*>(c.weight) + block * c.taps,
                           static_cast<const V<Real>*>(c.bias)[block], y);
        if (c.silu)
          for (int64_t t = 0; t < steps; ++t) y[t] *= sigmoid<Real>(y[t]);
        store_tile<Real>(c.out, seg.b, block * Vec<Real>::lanes, conv_channels<Real>(c, block), start, steps, y);
      }
    }
    item += seg.last - seg.first;
  }
}

// dx of a chunk, and what it adds to the gradients of weight and bias.
template <class Real, int K>
MMMAP_INLINE void conv_gradients(int64_t steps, int64_t taps, const V<Real>* x, const V<Real>* dy, const V<Real>* weight,
                                 V<Real>* dx, V<Real>* dweight, V<Real>& dbias) {
  const int64_t count = K ? K : taps;
  V<Real> sums[K ? K : 1];
  for (int64_t k = 0; k < K; ++k) sums[k] = V<Real>{};
  for (int64_t t = 0; t < steps; ++t) {
    V<Real> sum = weight[count - 1] * dy[t];
    for (int64_t k = 1; k < count; ++k) sum += weight[count - 1 - k] * dy[t + k];
    dx[t] = sum;
    dbias += dy[t];
    for (int64_t k = 0; k < K; ++k) sums[k] += dy[t] * x[t + k];
  }
  for (int64_t k = 0; k < K; ++k) dweight[k] += sums[k];
  for (int64_t k = 0; !K && k < count; ++k) {
    V<Real> sum{};
    for (int64_t t = 0; t < steps; ++t) sum += dy[t] * x[t + k];
    dweight[k] += sum;
  }
}

// Step t of x meets the outputs t .. t + taps - 1, so a chunk of dx needs taps - 1 further steps of dy; their part in
// the gradients of weight and bias belongs to the next chunk.
template <class Real>
void conv_backward(const Conv& c, const Work& w) {
  const int64_t past = c.taps - 1;
  Arena arena{static_cast<char*>(w.scratch)};
  auto* x = arena.take<V<Real>>(kChunk + 2 * past);
  auto* y = arena.take<V<Real>>(kChunk + past);
  auto* dy = arena.take<V<Real>>(kChunk + past);
  auto* dx = arena.take<V<Real>>(kChunk);
  for (int64_t item = w.begin; item < w.end;) {
    const Segment seg = segment_at(item, w.end, c.blocks);
    for (int64_t start = 0; start < c.length; start += kChunk) {
      const int64_t left = c.length - start, steps = left < kChunk ? left : kChunk;
      const int64_t wide = left < kChunk + past ? left : kChunk + past;
      for (int64_t block = seg.first; block < seg.last; ++block) {
        const int64_t count = conv_channels<Real>(c, block);
        const V<Real>* weight = static_cast<const V<Real>*>(c.weight) + block * c.taps;
        load_with_past<Real>(c, c.x, seg.b, block, start, wide, x);
        load_tile<Real>(c.dout, seg.b, block * Vec<Real>::lanes, count, start, wide, dy);
        if (c.silu) {
          convolve_any<Real>(wide, c.taps, x, weight, static_cast<const V<Real>*>(c.bias)[block], y);
          for (int64_t t = 0; t < wide; ++t) {
            const V<Real> sig = sigmoid<Real>(y[t]);
            dy[t] *= sig * (Real(1) + y[t] * (Real(1) - sig));
          }
        }
        for (int64_t t = wide; t < steps + past; ++t) dy[t] = V<Real>{};

        V<Real>* dweight = static_cast<V<Real>*>(c.dweight) + (w.worker * c.blocks + block) * c.taps;
        V<Real> sum_bias{};
        if (c.taps == 4)
          conv_gradients<Real, 4>(steps, c.taps, x, dy, weight, dx, dweight, sum_bias);
        else
          conv_gradients<Real, 0>(steps, c.taps, x, dy, weight, dx, dweight, sum_bias);
        static_cast<V<Real>*>(c.dbias)[w.worker * c.blocks + block] += sum_bias;
        if (c.dx_base.data) {
          load_tile<Real>(c.dx_base, seg.b, block * Vec<Real>::lanes, count, start, steps, y);
          for (int64_t t = 0; t < steps; ++t) dx[t] += y[t];
        }
        store_tile<Real>(c.dx, seg.b, block * Vec<Real>::lanes, count, start, steps, dx);
      }
    }
    item += seg.last - seg.first;
  }
}

template <class Real>
int64_t conv_bytes(const Conv& c, const Work&) {
  Arena arena{nullptr};
  arena.take<V<Real>>(kChunk + 2 * (c.taps - 1));
  arena.take<V<Real>>(kChunk + c.taps - 1);
  arena.take<V<Real>>(kChunk + c.taps - 1);
  arena.take<V<Real>>(kChunk);
  return arena.used;
}
