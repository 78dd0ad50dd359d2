// Tiles: `steps` vectors of one block of channels, in the computing type, between the kernels and tensors of any type
// and strides. Included by kernel.h alone, inside an anonymous namespace.

template <class Real>
MMMAP_INLINE Real load_one(const float* p) { return Real(*p); }
template <class Real>
MMMAP_INLINE Real load_one(const double* p) { return Real(*p); }
template <class Real>
MMMAP_INLINE Real load_one(const uint16_t* p) {  // bfloat16
  const uint32_t bits = uint32_t(*p) << 16;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return Real(x);
}

template <class Real>
MMMAP_INLINE void store_one(float* p, Real x) { *p = float(x); }
template <class Real>
MMMAP_INLINE void store_one(double* p, Real x) { *p = double(x); }
template <class Real>
MMMAP_INLINE void store_one(uint16_t* p, Real x) {  // bfloat16, to nearest even
  const float narrow = float(x);
  uint32_t bits;
  __builtin_memcpy(&bits, &narrow, 4);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  *p = uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

template <class Real, class Stored>
MMMAP_INLINE void load_rows(const Stored* from, int64_t row, int64_t step, int64_t count, int64_t steps, V<Real>* tile) {
  constexpr int lanes = Vec<Real>::lanes;
  Real* to = reinterpret_cast<Real*>(tile);
  if (row == 1 && count == lanes) {
    for (int64_t t = 0; t < steps; ++t)
      for (int lane = 0; lane < lanes; ++lane) to[t * lanes + lane] = load_one<Real>(from + t * step + lane);
    return;
  }
  if (count < lanes)
    for (int64_t t = 0; t < steps; ++t) tile[t] = V<Real>{};
  for (int64_t lane = 0; lane < count; ++lane)
    for (int64_t t = 0; t < steps; ++t) to[t * lanes + lane] = load_one<Real>(from + lane * row + t * step);
}

template <class Real, class Stored>
MMMAP_INLINE void store_rows(Stored* to, int64_t row, int64_t step, int64_t count, int64_t steps, const V<Real>* tile) {
  constexpr int lanes = Vec<Real>::lanes;
  const Real* from = reinterpret_cast<const Real*>(tile);
  if (row == 1 && count == lanes) {
    for (int64_t t = 0; t < steps; ++t)
      for (int lane = 0; lane < lanes; ++lane) store_one<Real>(to + t * step + lane, from[t * lanes + lane]);
    return;
  }
  for (int64_t lane = 0; lane < count; ++lane)
    for (int64_t t = 0; t < steps; ++t) store_one<Real>(to + lane * row + t * step, from[t * lanes + lane]);
}

// Rows first .. first + count - 1 of the view, `steps` steps from `start`; missing lanes become zero.
template <class Real>
void load_tile(const View& v, int64_t b, int64_t first, int64_t count, int64_t start, int64_t steps, V<Real>* tile) {
  const int64_t offset = b * v.batch + first * v.row + start * v.step;
  switch (v.dtype) {
    case DType::f32:
      return load_rows<Real>(static_cast<const float*>(v.data) + offset, v.row, v.step, count, steps, tile);
    case DType::f64:
      return load_rows<Real>(static_cast<const double*>(v.data) + offset, v.row, v.step, count, steps, tile);
    case DType::bf16:
      return load_rows<Real>(static_cast<const uint16_t*>(v.data) + offset, v.row, v.step, count, steps, tile);
  }
}

template <class Real>
void store_tile(const View& v, int64_t b, int64_t first, int64_t count, int64_t start, int64_t steps, const V<Real>* tile) {
  const int64_t offset = b * v.batch + first * v.row + start * v.step;
  switch (v.dtype) {
    case DType::f32:
      return store_rows<Real>(static_cast<float*>(v.data) + offset, v.row, v.step, count, steps, tile);
    case DType::f64:
      return store_rows<Real>(static_cast<double*>(v.data) + offset, v.row, v.step, count, steps, tile);
    case DType::bf16:
      return store_rows<Real>(static_cast<uint16_t*>(v.data) + offset, v.row, v.step, count, steps, tile);
  }
}

template <class Real, class Stored>
MMMAP_INLINE void load_weight_rows(const Stored* from, int64_t row, int64_t step, int64_t states, int64_t steps, Real* to) {
  for (int64_t t = 0; t < steps; ++t)
    for (int64_t n = 0; n < states; ++n) to[t * states + n] = load_one<Real>(from + n * row + t * step);
}

// B or C of one group as (steps, states) scalars.
template <class Real>
void load_weights(const GroupView& w, int64_t b, int64_t group, int64_t states, int64_t start, int64_t steps, Real* to) {
  const View& v = w.view;
  const int64_t offset = b * v.batch + group * w.group + start * v.step;
  switch (v.dtype) {
    case DType::f32:
      return load_weight_rows(static_cast<const float*>(v.data) + offset, v.row, v.step, states, steps, to);
    case DType::f64:
      return load_weight_rows(static_cast<const double*>(v.data) + offset, v.row, v.step, states, steps, to);
    case DType::bf16:
      return load_weight_rows(static_cast<const uint16_t*>(v.data) + offset, v.row, v.step, states, steps, to);
  }
}

// Memory of one worker, handed out in 64-byte pieces; with a null base it only counts.
struct Arena {
  char* base;
  int64_t used = 0;

  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(base + used);
    used += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }
};
