// Vectors of MMMAP_BYTES bytes through the vector extensions of GCC and Clang, and the functions the kernels need.
// Included by kernel.h alone, inside an anonymous namespace.
//
// Polynomials: Chebyshev fits made for these kernels. 2^r = 1 + r q(r) on [-0.5, 0.5] (exact at 0, so that a decay
// near one stays unbiased over long sequences); log1p(e) = s p(s^2) with s = e / (2 + e), which loses no digits for
// small e.

#define MMMAP_INLINE inline __attribute__((always_inline))

template <class Real>
struct Vec;

template <>
struct Vec<float> {
  typedef float V __attribute__((vector_size(MMMAP_BYTES)));
  typedef float Unaligned __attribute__((vector_size(MMMAP_BYTES), aligned(4), may_alias));
  typedef int32_t I __attribute__((vector_size(MMMAP_BYTES)));
  static constexpr int lanes = MMMAP_BYTES / 4;
  static constexpr int mantissa = 23;
  static constexpr float round = 12582912.0f, lowest = -126.0f, highest = 128.0f;
  static MMMAP_INLINE V exp2_poly(V r) {
    V p = r * 1.3390863314270973e-03f + 9.618083015084267e-03f;
    p = p * r + 5.5503569543361664e-02f;
    p = p * r + 2.4022650718688965e-01f;
    p = p * r + 6.931471824645996e-01f;
    return p * r + 1.0f;
  }
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
  typedef int64_t I __attribute__((vector_size(MMMAP_BYTES)));
  static constexpr int lanes = MMMAP_BYTES / 8;
  static constexpr int mantissa = 52;
  static constexpr double round = 6755399441055744.0, lowest = -1022.0, highest = 1024.0;
  static MMMAP_INLINE V exp2_poly(V r) {
    V p = r * 4.4549605981865186e-10 + 7.072585949269223e-09;
    p = p * r + 1.0178062445845774e-07;
    p = p * r + 1.321544258792169e-06;
    p = p * r + 1.525273382983612e-05;
    p = p * r + 1.540353044173605e-04;
    p = p * r + 1.3333558146416936e-03;
    p = p * r + 9.618129107606888e-03;
    p = p * r + 5.55041086648216e-02;
    p = p * r + 2.4022650695910097e-01;
    p = p * r + 6.931471805599453e-01;
    return p * r + 1.0;
  }
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

// Written so that a NaN in x stays.
template <class Real>
MMMAP_INLINE V<Real> at_least(V<Real> x, Real low) {
  const V<Real> bound = splat<Real>(low);
  return bound > x ? bound : x;
}

template <class Real>
MMMAP_INLINE V<Real> at_most(V<Real> x, Real high) {
  const V<Real> bound = splat<Real>(high);
  return bound < x ? bound : x;
}

// 2^x; infinity for large x, the smallest normal number for very small x.
template <class Real>
MMMAP_INLINE V<Real> exp2(V<Real> x) {
  using T = Vec<Real>;
  x = at_most<Real>(at_least<Real>(x, T::lowest), T::highest);
  const V<Real> shifted = x + T::round;  // its low bits hold the nearest integer
  const V<Real> r = x - (shifted - T::round);
  const typename T::I scale = reinterpret_cast<typename T::I>(shifted) << T::mantissa;
  return reinterpret_cast<V<Real>>(reinterpret_cast<typename T::I>(T::exp2_poly(r)) + scale);
}

constexpr double kLog2e = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

// exp(-|x|): in [0, 1], the one exponential that sigmoid and softplus need.
template <class Real>
MMMAP_INLINE V<Real> exp_minus_abs(V<Real> x) {
  const V<Real> magnitude = x < Real(0) ? -x : x;
  return exp2<Real>(magnitude * Real(-kLog2e));
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
