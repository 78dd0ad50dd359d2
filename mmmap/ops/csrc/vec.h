// Vectors of MMMAP_BYTES bytes through the vector extensions of GCC and Clang, and the functions the kernels need.
// Included by kernel.h alone, inside an anonymous namespace.
//
// Polynomials: Chebyshev fits made for these kernels. 2^r = 1 + r q(r) on [-0.5, 0.5] (exact at 0, so that a decay
// near one stays unbiased over long sequences); log1p(e) = s p(s^2) with s = e / (2 + e), which loses no digits for
// small e.

#define MMMAP_INLINE inline __attribute__((always_inline))

template <class Real>
struct Vec;

#if defined(__x86_64__) && !defined(__clang__) && MMMAP_BYTES < 64
#if MMMAP_BYTES == 16
#define MMMAP_X86(name) __builtin_ia32_##name
#else
#define MMMAP_X86(name) __builtin_ia32_##name##256
#endif
#define MMMAP_MAX_MIN(V, suffix)                                                          \
  static MMMAP_INLINE V larger(V a, V b) { return MMMAP_X86(max##suffix)(a, b); } \
  static MMMAP_INLINE V smaller(V a, V b) { return MMMAP_X86(min##suffix)(a, b); }
#else
#define MMMAP_MAX_MIN(V, suffix)                                          \
  static MMMAP_INLINE V larger(V a, V b) { return a > b ? a : b; } \
  static MMMAP_INLINE V smaller(V a, V b) { return a < b ? a : b; }
#endif

template <>
struct Vec<float> {
  typedef float V __attribute__((vector_size(MMMAP_BYTES)));
  typedef float Unaligned __attribute__((vector_size(MMMAP_BYTES), aligned(4), may_alias));
  typedef int32_t Int;
  typedef int32_t I __attribute__((vector_size(MMMAP_BYTES)));
  typedef int32_t UnalignedI __attribute__((vector_size(MMMAP_BYTES), aligned(4), may_alias));
  static constexpr int lanes = MMMAP_BYTES / 4;
  MMMAP_MAX_MIN(V, ps)
  static constexpr int mantissa = 23;
  static constexpr float round = 12582912.0f, lowest = -126.0f, highest = 128.0f;
  static constexpr int exp2_count = 6;
  static constexpr float exp2_terms[] = {1.3264737790450454e-03f, 9.671513922512531e-03f, 5.550733581185341e-02f,
                                         2.4022242426872253e-01f, 6.931470036506653e-01f, 1.0f};
  static MMMAP_INLINE V log1p_poly(V w) {
    V p = w * 2.4393908084e-01f + 2.1398560507e-01f;
    p = p * w + 2.8620207408e-01f;
    p = p * w + 3.9998711247e-01f;
    p = p * w + 6.6666679026e-01f;
    return p * w + 2.0f;
  }
};

template <>
struct Vec<double> {
  typedef double V __attribute__((vector_size(MMMAP_BYTES)));
  typedef double Unaligned __attribute__((vector_size(MMMAP_BYTES), aligned(8), may_alias));
  typedef int64_t Int;
  typedef int64_t I __attribute__((vector_size(MMMAP_BYTES)));
  typedef int64_t UnalignedI __attribute__((vector_size(MMMAP_BYTES), aligned(8), may_alias));
  static constexpr int lanes = MMMAP_BYTES / 8;
  MMMAP_MAX_MIN(V, pd)
  static constexpr int mantissa = 52;
  static constexpr double round = 6755399441055744.0, lowest = -1022.0, highest = 1024.0;
  static constexpr int exp2_count = 12;
  static constexpr double exp2_terms[] = {4.4549605981865186e-10, 7.072585949269223e-09, 1.0178062445845774e-07,
                                          1.321544258792169e-06,  1.525273382983612e-05, 1.540353044173605e-04,
                                          1.3333558146416936e-03, 9.618129107606888e-03, 5.55041086648216e-02,
                                          2.4022650695910097e-01, 6.931471805599453e-01, 1.0};
  static MMMAP_INLINE V log1p_poly(V w) {
    V p = w * 1.607256613467827e-01 + 5.78540899766765e-02;
    p = p * w + 1.0098185468634059e-01;
    p = p * w + 1.0454947515530863e-01;
    p = p * w + 1.1770618555248309e-01;
    p = p * w + 1.3332999520385172e-01;
    p = p * w + 1.5384628221264643e-01;
    p = p * w + 1.8181817852181228e-01;
    p = p * w + 2.2222222227641733e-01;
    p = p * w + 2.857142857137565e-01;
    p = p * w + 4.000000000000027e-01;
    p = p * w + 6.666666666666666e-01;
    return p * w + 2.0;
  }
};

template <class Real>
using V = typename Vec<Real>::V;

template <class Real>
MMMAP_INLINE V<Real> splat(Real x) {
  return V<Real>{} + x;
}

// The larger and the smaller of x and a bound; a NaN in x stays. GCC would make two instructions of a
// comparison.
template <class Real>
MMMAP_INLINE V<Real> at_least(V<Real> x, Real low) {
  const V<Real> bound = splat<Real>(low);
  return Vec<Real>::larger(bound, x);
}

template <class Real>
MMMAP_INLINE V<Real> at_most(V<Real> x, Real high) {
  const V<Real> bound = splat<Real>(high);
  return Vec<Real>::smaller(bound, x);
}

// x[k] = 2^x[k]: infinity for large x, the smallest normal number for very small x; kClamped is false if the caller
// knows that the result is a normal number. Each operation is done for all K
// before the next one, since the processor cannot overlap K long chains by itself.
template <class Real, int K, bool kClamped = true>
MMMAP_INLINE void exp2(V<Real>* x) {
  using T = Vec<Real>;
  typename T::I scale[K];
#pragma GCC unroll 8
  for (int k = 0; kClamped && k < K; ++k) x[k] = at_most<Real>(at_least<Real>(x[k], T::lowest), T::highest);
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k) {
    const V<Real> shifted = x[k] + T::round;  // its low bits hold the nearest integer
    x[k] -= shifted - T::round;
    scale[k] = reinterpret_cast<typename T::I>(shifted) << T::mantissa;
  }
  V<Real> p[K];
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k) p[k] = x[k] * T::exp2_terms[0] + T::exp2_terms[1];
#pragma GCC unroll 16
  for (int i = 2; i < T::exp2_count; ++i) {
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) p[k] = p[k] * x[k] + T::exp2_terms[i];
  }
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k) x[k] = reinterpret_cast<V<Real>>(reinterpret_cast<typename T::I>(p[k]) + scale[k]);
}

constexpr double kLog2e = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

// exp(-|x|): in [0, 1], the one exponential that sigmoid and softplus need.
template <class Real>
MMMAP_INLINE V<Real> exp_minus_abs(V<Real> x) {
  const V<Real> magnitude = x < Real(0) ? -x : x;
  V<Real> power = magnitude * Real(-kLog2e);
  exp2<Real, 1>(&power);
  return power;
}

template <class Real>
MMMAP_INLINE V<Real> sigmoid_from(V<Real> x, V<Real> e) {
  return (x < Real(0) ? e : splat<Real>(1)) / (Real(1) + e);
}

template <class Real>
MMMAP_INLINE V<Real> sigmoid(V<Real> x) {
  return sigmoid_from<Real>(x, exp_minus_abs<Real>(x));
}

// softplus, the identity above 20, and its derivative.
template <class Real>
MMMAP_INLINE V<Real> softplus(V<Real> x, V<Real>* slope) {
  const V<Real> e = exp_minus_abs<Real>(x);
  const V<Real> s = e / (Real(2) + e);
  const V<Real> soft = at_least<Real>(x, Real(0)) + s * Vec<Real>::log1p_poly(s * s);
  const auto linear = x > Real(20);
  *slope = linear ? splat<Real>(1) : sigmoid_from<Real>(x, e);
  return linear ? x : soft;
}

template <class Real>
MMMAP_INLINE Real horizontal_sum(V<Real> x) {
  Real sum = x[0];
  for (int lane = 1; lane < Vec<Real>::lanes; ++lane) sum += x[lane];
  return sum;
}
