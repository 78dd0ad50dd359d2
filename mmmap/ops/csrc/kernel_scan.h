// The selective scan, forward and backward. Included by kernel.h alone, inside an anonymous namespace.
//
// Channels lie across the lanes of a vector, so y needs no sum across lanes. Order of work: batch element, chunk of
// kChunk steps, block of channels, a few states at a time, step. The states of one block and chunk stay in registers
// or in the first cache; the backward pass recomputes them from the state kept at the border of the chunk.

template <class Real>
struct ScanTiles {
  V<Real> u[kChunk], dt[kChunk], slope[kChunk], dt_u[kChunk], y[kChunk], gate[kChunk];
};

// One run of blocks of one batch element, which is what the loops below work on.
struct Segment {
  int64_t b, first, last;  // blocks first .. last - 1
};

MMMAP_INLINE Segment segment_at(int64_t item, int64_t end, int64_t blocks) {
  const int64_t b = item / blocks, first = item % blocks;
  const int64_t last = first + (end - item);
  return {b, first, last < blocks ? last : blocks};
}

MMMAP_INLINE int64_t most_blocks(const Scan& s, const Work& w) {
  const int64_t blocks = s.groups * s.group_blocks;
  return w.end - w.begin < blocks ? w.end - w.begin : blocks;
}

// The channels of a block: the first one and how many.
template <class Real>
struct BlockChannels {
  int64_t group, first, count;
  MMMAP_INLINE BlockChannels(const Scan& s, int64_t block) {
    const int64_t per_group = s.channels / s.groups, within = block % s.group_blocks * Vec<Real>::lanes;
    group = block / s.group_blocks;
    first = group * per_group + within;
    count = per_group - within < Vec<Real>::lanes ? per_group - within : Vec<Real>::lanes;
  }
};

template <class Real>
MMMAP_INLINE void load_inputs(const Scan& s, int64_t b, int64_t block, const BlockChannels<Real>& ch, int64_t start,
                              int64_t steps, ScanTiles<Real>& x) {
  load_tile<Real>(s.u, b, ch.first, ch.count, start, steps, x.u);
  load_tile<Real>(s.delta, b, ch.first, ch.count, start, steps, x.dt);
  const V<Real> bias = static_cast<const V<Real>*>(s.bias)[block];
  if (s.softplus) {
    for (int64_t t = 0; t < steps; ++t) x.dt[t] = softplus<Real>(x.dt[t] + bias, &x.slope[t]);
  } else {
    for (int64_t t = 0; t < steps; ++t) x.dt[t] += bias;
  }
  for (int64_t t = 0; t < steps; ++t) x.dt_u[t] = x.dt[t] * x.u[t];
}

// Whether every decay of a block in a chunk is a normal number, as nearly always: its exponential needs no clamps then.
template <class Real>
MMMAP_INLINE bool decays_are_normal(int64_t steps, int64_t states, const ScanTiles<Real>& x, const V<Real>* A) {
  using T = Vec<Real>;
  V<Real> dt{}, a{};
  for (int64_t t = 0; t < steps; ++t) dt = T::larger(T::larger(x.dt[t], -x.dt[t]), dt);
  for (int64_t n = 0; n < states; ++n) a = T::larger(T::larger(A[n], -A[n]), a);
  const V<Real> largest = dt * a;
  for (int lane = 0; lane < T::lanes; ++lane)
    if (!(largest[lane] < -T::lowest)) return false;
  return true;
}

// Advance K states of a block through a chunk and add their outputs to y.
template <class Real, int K, bool kClamped>
MMMAP_INLINE void advance(int64_t steps, int64_t states, const ScanTiles<Real>& x, V<Real>* y, const Real* B,
                          const Real* C, const V<Real>* A, V<Real>* h) {
  V<Real> a[K], state[K];
  for (int k = 0; k < K; ++k) a[k] = A[k], state[k] = h[k];
  for (int64_t t = 0; t < steps; ++t, B += states, C += states) {
    const V<Real> dt = x.dt[t], dt_u = x.dt_u[t];
    V<Real> decay[K];
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) decay[k] = dt * a[k];
    exp2<Real, K, kClamped>(decay);
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) state[k] = state[k] * decay[k] + dt_u * B[k];
    V<Real> sum = y[t];
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) sum += state[k] * C[k];
    y[t] = sum;
  }
  for (int k = 0; k < K; ++k) h[k] = state[k];
}

template <class Real, bool kClamped>
MMMAP_INLINE void advance_all(int64_t steps, int64_t states, ScanTiles<Real>& x, const Real* B, const Real* C,
                              const V<Real>* A, V<Real>* h) {
  int64_t n = 0;
  for (; n + 4 <= states; n += 4) advance<Real, 4, kClamped>(steps, states, x, x.y, B + n, C + n, A + n, h + n);
  for (; n < states; ++n) advance<Real, 1, kClamped>(steps, states, x, x.y, B + n, C + n, A + n, h + n);
}

// Add the caller's part of y; keep the sum, gate, scale and write it.
template <class Real>
MMMAP_INLINE void finish_output(const Scan& s, int64_t b, const BlockChannels<Real>& ch, int64_t start, int64_t steps,
                                ScanTiles<Real>& x) {
  if (s.base.data) {
    load_tile<Real>(s.base, b, ch.first, ch.count, start, steps, x.gate);
    for (int64_t t = 0; t < steps; ++t) x.y[t] += x.gate[t];
  }
  if (s.y.data) store_tile<Real>(s.y, b, ch.first, ch.count, start, steps, x.y);
  if (s.z.data) {
    load_tile<Real>(s.z, b, ch.first, ch.count, start, steps, x.gate);
    for (int64_t t = 0; t < steps; ++t) x.y[t] *= x.gate[t] * sigmoid<Real>(x.gate[t]);
  }
  if (s.scale != 1)
    for (int64_t t = 0; t < steps; ++t) x.y[t] *= Real(s.scale);
  store_tile<Real>(s.out, b, ch.first, ch.count, start, steps, x.y);
}

template <class Real>
void store_last(const Scan& s, int64_t b, const BlockChannels<Real>& ch, const V<Real>* h) {
  Real* last = static_cast<Real*>(s.last) + (b * s.channels + ch.first) * s.states;
  for (int64_t n = 0; n < s.states; ++n)
    for (int64_t lane = 0; lane < ch.count; ++lane) last[lane * s.states + n] = h[n][lane];
}

template <class Real>
void scan_forward(const Scan& s, const Work& w) {
  const int64_t N = s.states, blocks = s.groups * s.group_blocks;
  Arena arena{static_cast<char*>(w.scratch)};
  auto* x = arena.take<ScanTiles<Real>>(1);
  auto* B = arena.take<Real>(kChunk * N);
  auto* C = arena.take<Real>(kChunk * N);
  auto* carry = arena.take<V<Real>>(most_blocks(s, w) * N);
  const int64_t chunks = (s.length + kChunk - 1) / kChunk;

  for (int64_t item = w.begin; item < w.end;) {
    const Segment seg = segment_at(item, w.end, blocks);
    for (int64_t i = 0; i < (seg.last - seg.first) * N; ++i) carry[i] = V<Real>{};
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t start = chunk * kChunk;
      const int64_t steps = s.length - start < kChunk ? s.length - start : kChunk;
      int64_t group = -1;
      for (int64_t block = seg.first; block < seg.last; ++block) {
        const BlockChannels<Real> ch(s, block);
        if (ch.group != group) {
          group = ch.group;
          load_weights<Real>(s.B, seg.b, group, N, start, steps, B);
          load_weights<Real>(s.C, seg.b, group, N, start, steps, C);
        }
        load_inputs<Real>(s, seg.b, block, ch, start, steps, *x);
        const V<Real> skip = static_cast<const V<Real>*>(s.D)[block];
        for (int64_t t = 0; t < steps; ++t) x->y[t] = skip * x->u[t];

        const V<Real>* A = static_cast<const V<Real>*>(s.A) + block * N;
        V<Real>* h = carry + (block - seg.first) * N;
        if (decays_are_normal<Real>(steps, N, *x, A))
          advance_all<Real, false>(steps, N, *x, B, C, A, h);
        else
          advance_all<Real, true>(steps, N, *x, B, C, A, h);
        if (s.borders && chunk + 1 < chunks) {
          auto* border = static_cast<Real*>(s.borders) + (seg.b * (chunks - 1) + chunk) * s.border_stride;
          auto* to = reinterpret_cast<V<Real>*>(border) + block * N;
          for (int64_t i = 0; i < N; ++i) to[i] = h[i];
        }

        finish_output<Real>(s, seg.b, ch, start, steps, *x);
      }
    }
    if (s.last)
      for (int64_t block = seg.first; block < seg.last; ++block)
        store_last<Real>(s, seg.b, BlockChannels<Real>(s, block), carry + (block - seg.first) * N);
    item += seg.last - seg.first;
  }
}

template <class Real>
struct GradientTiles {
  V<Real> dy[kChunk], ddt_u[kChunk], ddt[kChunk], dgate[kChunk];
};

// States and decays of K states of a block in a chunk.
template <class Real, int K>
struct History {
  V<Real> state[(kChunk + 1) * K], decay[kChunk * K];
};

// As advance, keeping every state and decay; y is computed for a gate only.
template <class Real, int K, bool kOutput, bool kClamped>
MMMAP_INLINE void replay(int64_t steps, int64_t states, const ScanTiles<Real>& x, V<Real>* y, const Real* B,
                         const Real* C, const V<Real>* A, const V<Real>* border, History<Real, K>& past) {
  V<Real> a[K], state[K];
  for (int k = 0; k < K; ++k) {
    a[k] = A[k];
    state[k] = past.state[k] = border ? border[k] : V<Real>{};
  }
  for (int64_t t = 0; t < steps; ++t, B += states, C += states) {
    const V<Real> dt = x.dt[t], dt_u = x.dt_u[t];
    V<Real> decay[K];
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) decay[k] = dt * a[k];
    exp2<Real, K, kClamped>(decay);
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) {
      past.decay[t * K + k] = decay[k];
      past.state[(t + 1) * K + k] = state[k] = state[k] * decay[k] + dt_u * B[k];
    }
    if (kOutput) {
      V<Real> sum = y[t];
#pragma GCC unroll 4
      for (int k = 0; k < K; ++k) sum += state[k] * C[k];
      y[t] = sum;
    }
  }
}

// Back through a chunk for K states: dh is the gradient of the state after the chunk on entry, before it on return.
template <class Real, int K>
MMMAP_INLINE void retreat(int64_t steps, int64_t states, const ScanTiles<Real>& x, GradientTiles<Real>& g, const Real* B,
                          const Real* C, const V<Real>* A, const History<Real, K>& past, V<Real>* dh, V<Real>* dA,
                          V<Real>* dB, V<Real>* dC) {
  V<Real> grad[K], sum_A[K];
  for (int k = 0; k < K; ++k) grad[k] = dh[k], sum_A[k] = V<Real>{};
  for (int64_t t = steps - 1; t >= 0; --t) {
    const V<Real> dt = x.dt[t], dt_u = x.dt_u[t], dy = g.dy[t];
    V<Real> ddt_u = g.ddt_u[t], ddt = g.ddt[t];
    const int64_t row = t * states;
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) {
      grad[k] += dy * C[row + k];
      dC[row + k] += dy * past.state[(t + 1) * K + k];
      dB[row + k] += grad[k] * dt_u;
      ddt_u += grad[k] * B[row + k];
      grad[k] *= past.decay[t * K + k];
      const V<Real> dexponent = grad[k] * past.state[t * K + k];
      sum_A[k] += dexponent * dt;
      ddt += dexponent * A[k];
    }
    g.ddt_u[t] = ddt_u;
    g.ddt[t] = ddt;
  }
  for (int k = 0; k < K; ++k) dh[k] = grad[k], dA[k] += sum_A[k];
}

template <class Real, int K>
MMMAP_INLINE void chunk_backward(bool output, bool clamped, int64_t steps, int64_t states, ScanTiles<Real>& x,
                                 GradientTiles<Real>& g, const Real* B, const Real* C, const V<Real>* A,
                                 const V<Real>* border, History<Real, K>& past, V<Real>* dh, V<Real>* dA, V<Real>* dB,
                                 V<Real>* dC) {
  if (clamped)  // rare: one version serves both, a few operations slower
    replay<Real, K, true, true>(steps, states, x, x.y, B, C, A, border, past);
  else if (output)
    replay<Real, K, true, false>(steps, states, x, x.y, B, C, A, border, past);
  else
    replay<Real, K, false, false>(steps, states, x, x.y, B, C, A, border, past);
  retreat<Real, K>(steps, states, x, g, B, C, A, past, dh, dA, dB, dC);
}

template <class Real>
struct BackwardScratch {
  ScanTiles<Real>* x;
  GradientTiles<Real>* g;
  History<Real, 4>* past;
  Real *B, *C;
  V<Real> *dB, *dC, *carry;

  BackwardScratch(Arena& arena, const Scan& s, const Work& w)
      : x(arena.take<ScanTiles<Real>>(1)),
        g(arena.take<GradientTiles<Real>>(1)),
        past(arena.take<History<Real, 4>>(1)),
        B(arena.take<Real>(kChunk * s.states)),
        C(arena.take<Real>(kChunk * s.states)),
        dB(arena.take<V<Real>>(kChunk * s.states)),
        dC(arena.take<V<Real>>(kChunk * s.states)),
        carry(arena.take<V<Real>>(most_blocks(s, w) * s.states)) {}
};

// Sum the dB and dC of a chunk over the lanes and add them to those of the segment.
template <class Real>
void flush_weights(const Scan& s, const Segment& seg, int64_t worker, int64_t group, int64_t start, int64_t steps,
                   BackwardScratch<Real>& m) {
  const int64_t N = s.states, per_kind = s.groups * s.length * N;
  Real* dB = static_cast<Real*>(s.dweights) + (seg.b + worker) * 2 * per_kind + group * s.length * N;
  Real* dC = dB + per_kind;
  for (int64_t t = 0; t < steps; ++t) {
    const int64_t position = s.reverse ? s.length - 1 - start - t : start + t;
    for (int64_t n = 0; n < N; ++n) {
      dB[position * N + n] = horizontal_sum<Real>(m.dB[t * N + n]);
      dC[position * N + n] = horizontal_sum<Real>(m.dC[t * N + n]);
      m.dB[t * N + n] = m.dC[t * N + n] = V<Real>{};
    }
  }
}

// dy from dout, and what the gate needs. The output before the gate is complete only after all states.
template <class Real>
MMMAP_INLINE void begin_gradients(const Scan& s, const Segment& seg, const BlockChannels<Real>& ch, V<Real> skip,
                                  int64_t start, int64_t steps, ScanTiles<Real>& x, GradientTiles<Real>& g) {
  load_tile<Real>(s.dout, seg.b, ch.first, ch.count, start, steps, g.dy);
  for (int64_t t = 0; t < steps; ++t) g.dy[t] *= Real(s.scale), g.ddt[t] = g.ddt_u[t] = V<Real>{};
  for (int64_t t = 0; t < steps; ++t) x.y[t] = skip * x.u[t];
  if (!s.z.data) return;
  load_tile<Real>(s.z, seg.b, ch.first, ch.count, start, steps, x.gate);
  for (int64_t t = 0; t < steps; ++t) {
    const V<Real> gate = x.gate[t], sig = sigmoid<Real>(gate);
    g.dgate[t] = g.dy[t] * sig * (Real(1) + gate * (Real(1) - sig));
    g.dy[t] *= gate * sig;
  }
  if (!s.y.data || !s.dz.data) return;
  // The caller kept the output before the gate.
  load_tile<Real>(s.y, seg.b, ch.first, ch.count, start, steps, x.gate);
  for (int64_t t = 0; t < steps; ++t) g.dgate[t] *= x.gate[t];
}

// du, ddelta, dz, and the sums for D and the bias, once the states are done.
template <class Real>
MMMAP_INLINE void end_gradients(const Scan& s, const Segment& seg, const BlockChannels<Real>& ch, V<Real> skip,
                                int64_t start, int64_t steps, ScanTiles<Real>& x, GradientTiles<Real>& g, V<Real>* dD,
                                V<Real>* dbias) {
  V<Real> sum_D{}, sum_bias{};
  for (int64_t t = 0; t < steps; ++t) {
    // A is in units of log2(e).
    V<Real> ddt = g.ddt[t] * Real(kLn2) + g.ddt_u[t] * x.u[t];
    if (s.softplus) ddt *= x.slope[t];
    sum_bias += ddt;
    sum_D += g.dy[t] * x.u[t];
    g.ddt[t] = ddt;
    g.ddt_u[t] = g.ddt_u[t] * x.dt[t] + g.dy[t] * skip;
  }
  *dD += sum_D;
  *dbias += sum_bias;
  store_tile<Real>(s.du, seg.b, ch.first, ch.count, start, steps, g.ddt_u);
  store_tile<Real>(s.ddelta, seg.b, ch.first, ch.count, start, steps, g.ddt);
  if (s.dz.data) {
    if (!s.y.data)
      for (int64_t t = 0; t < steps; ++t) g.dgate[t] *= x.y[t];
    store_tile<Real>(s.dz, seg.b, ch.first, ch.count, start, steps, g.dgate);
  }
}

template <class Real>
void scan_backward(const Scan& s, const Work& w) {
  const int64_t N = s.states, blocks = s.groups * s.group_blocks, chunks = (s.length + kChunk - 1) / kChunk;
  Arena arena{static_cast<char*>(w.scratch)};
  BackwardScratch<Real> m(arena, s, w);
  V<Real>* all_dA = static_cast<V<Real>*>(s.dA) + w.worker * blocks * N;
  V<Real>* all_dD = static_cast<V<Real>*>(s.dD) + w.worker * blocks;
  V<Real>* all_dbias = static_cast<V<Real>*>(s.dbias) + w.worker * blocks;
  const bool output = s.dz.data && !s.y.data;
  for (int64_t i = 0; i < kChunk * N; ++i) m.dB[i] = m.dC[i] = V<Real>{};

  for (int64_t item = w.begin; item < w.end;) {
    const Segment seg = segment_at(item, w.end, blocks);
    const auto* dlast = static_cast<const V<Real>*>(s.dlast);
    for (int64_t i = 0; i < (seg.last - seg.first) * N; ++i)
      m.carry[i] = dlast ? dlast[(seg.b * blocks + seg.first) * N + i] : V<Real>{};

    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const int64_t start = chunk * kChunk;
      const int64_t steps = s.length - start < kChunk ? s.length - start : kChunk;
      const Real* slab =
          chunk == 0 ? nullptr
                     : static_cast<const Real*>(s.borders) + (seg.b * (chunks - 1) + chunk - 1) * s.border_stride;
      int64_t group = -1;
      for (int64_t block = seg.first; block < seg.last; ++block) {
        const BlockChannels<Real> ch(s, block);
        if (ch.group != group) {
          if (group >= 0) flush_weights<Real>(s, seg, w.worker, group, start, steps, m);
          group = ch.group;
          load_weights<Real>(s.B, seg.b, group, N, start, steps, m.B);
          load_weights<Real>(s.C, seg.b, group, N, start, steps, m.C);
        }
        const V<Real> skip = static_cast<const V<Real>*>(s.D)[block];
        load_inputs<Real>(s, seg.b, block, ch, start, steps, *m.x);
        begin_gradients<Real>(s, seg, ch, skip, start, steps, *m.x, *m.g);

        const V<Real>* A = static_cast<const V<Real>*>(s.A) + block * N;
        const V<Real>* border = slab ? reinterpret_cast<const V<Real>*>(slab) + block * N : nullptr;
        V<Real>*dh = m.carry + (block - seg.first) * N, *dA = all_dA + block * N;
        const bool clamped = !decays_are_normal<Real>(steps, N, *m.x, A);
        auto& past_one = *reinterpret_cast<History<Real, 1>*>(m.past);
        int64_t n = 0;
        for (; n + 4 <= N; n += 4)
          chunk_backward<Real, 4>(output, clamped, steps, N, *m.x, *m.g, m.B + n, m.C + n, A + n,
                                  border ? border + n : nullptr, *m.past, dh + n, dA + n, m.dB + n, m.dC + n);
        for (; n < N; ++n)
          chunk_backward<Real, 1>(output, clamped, steps, N, *m.x, *m.g, m.B + n, m.C + n, A + n,
                                  border ? border + n : nullptr, past_one, dh + n, dA + n, m.dB + n, m.dC + n);
        end_gradients<Real>(s, seg, ch, skip, start, steps, *m.x, *m.g, all_dD + block, all_dbias + block);
      }
      flush_weights<Real>(s, seg, w.worker, group, start, steps, m);
    }
    item += seg.last - seg.first;
  }
}

template <class Real>
int64_t scan_forward_bytes(const Scan& s, const Work& w) {
  Arena arena{nullptr};
  arena.take<ScanTiles<Real>>(1);
  arena.take<Real>(kChunk * s.states);
  arena.take<Real>(kChunk * s.states);
  arena.take<V<Real>>(most_blocks(s, w) * s.states);
  return arena.used;
}

template <class Real>
int64_t scan_backward_bytes(const Scan& s, const Work& w) {
  Arena arena{nullptr};
  BackwardScratch<Real> counted(arena, s, w);
  return arena.used;
}
