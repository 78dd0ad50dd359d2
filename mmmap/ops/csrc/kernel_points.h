// Sampling and neighbours of point clouds. Included by kernel.h alone, inside an anonymous namespace.
//
// Clouds are (batch, dims, padded): one array a coordinate, filled up with infinities to whole vectors, so that every
// distance comes from the same instructions wherever its point lies, and what is missing is never near.

// One bit a lane of the result of a comparison.
template <class Real>
MMMAP_INLINE uint32_t lane_bits(typename Vec<Real>::I mask) {
#if defined(__x86_64__) && !defined(__clang__) && MMMAP_BYTES == 64
  typedef long long Quads __attribute__((vector_size(64)));
  if constexpr (sizeof(Real) == 4)
    return uint16_t(__builtin_ia32_cvtd2mask512(mask));
  else
    return uint8_t(__builtin_ia32_cvtq2mask512((Quads)mask));
#elif defined(__x86_64__) && !defined(__clang__)
  if constexpr (sizeof(Real) == 4)
    return uint32_t(MMMAP_X86(movmskps)(reinterpret_cast<V<float>>(mask)));
  else
    return uint32_t(MMMAP_X86(movmskpd)(reinterpret_cast<V<double>>(mask)));
#else
  uint32_t bits = 0;
  for (int lane = 0; lane < Vec<Real>::lanes; ++lane) bits |= uint32_t(mask[lane] & 1) << lane;
  return bits;
#endif
}

template <class Real>
MMMAP_INLINE typename Vec<Real>::I lane_numbers() {
  typename Vec<Real>::I numbers;
  for (int lane = 0; lane < Vec<Real>::lanes; ++lane) numbers[lane] = lane;
  return numbers;
}

// Squared distances of the points first .. first + lanes - 1 to one query; D = 0: dims at run time.
template <class Real, int D>
MMMAP_INLINE V<Real> squared_distances(const Real* cloud, int64_t padded, int64_t dims, int64_t first, const V<Real>* query) {
  V<Real> sum{};
  for (int64_t d = 0; d < (D ? D : dims); ++d) {
    const V<Real> gap = *reinterpret_cast<const typename Vec<Real>::Unaligned*>(cloud + d * padded + first) - query[d];
    sum += gap * gap;
  }
  return sum;
}

// The coordinates of one point in all lanes.
template <class Real>
MMMAP_INLINE void spread(const Real* point, int64_t stride, int64_t dims, V<Real>* to) {
  for (int64_t d = 0; d < dims; ++d) to[d] = splat<Real>(point[d * stride]);
}

// ---- Farthest point sampling: a pass over the points for each pick.

template <class Real>
int64_t farthest_bytes(const Farthest& f, const Work&) {
  Arena arena{nullptr};
  arena.take<Real>(f.padded);
  arena.take<V<Real>>(f.dims);
  return arena.used;
}

template <class Real, int D>
MMMAP_INLINE int64_t farthest_pass(const Farthest& f, const Real* cloud, const V<Real>* query, Real* nearest) {
  using I = typename Vec<Real>::I;
  constexpr int lanes = Vec<Real>::lanes, kUnroll = 2;
  V<Real> best[kUnroll];
  I where[kUnroll], now[kUnroll];
  for (int u = 0; u < kUnroll; ++u)
    best[u] = splat<Real>(-1), where[u] = I{}, now[u] = lane_numbers<Real>() + u * lanes;
  const auto step = [&](int64_t first, int u) __attribute__((always_inline)) {
    auto* kept = reinterpret_cast<typename Vec<Real>::Unaligned*>(nearest + first);
    const V<Real> distance = Vec<Real>::smaller(squared_distances<Real, D>(cloud, f.padded, f.dims, first, query), V<Real>(*kept));
    *kept = distance;
    const auto farther = distance > best[u];
    best[u] = farther ? distance : best[u];
    where[u] = farther ? now[u] : where[u];
    now[u] += kUnroll * lanes;
  };
  int64_t first = 0;
  for (; first + kUnroll * lanes <= f.padded; first += kUnroll * lanes) {
#pragma GCC unroll 2
    for (int u = 0; u < kUnroll; ++u) step(first + u * lanes, u);
  }
  if (first < f.padded) step(first, 0);
  Real top = -1;
  int64_t pick = 0;
  for (int u = 0; u < kUnroll; ++u)
    for (int lane = 0; lane < lanes; ++lane)
      if (best[u][lane] > top || (best[u][lane] == top && int64_t(where[u][lane]) < pick))
        top = best[u][lane], pick = where[u][lane];
  return pick;
}

template <class Real, int D>
void farthest_of(const Farthest& f, const Work& w) {
  Arena arena{static_cast<char*>(w.scratch)};
  Real* nearest = arena.take<Real>(f.padded);
  auto* query = arena.take<V<Real>>(f.dims);
  for (int64_t b = w.begin; b < w.end; ++b) {
    const Real* cloud = static_cast<const Real*>(f.points) + b * f.dims * f.padded;
    for (int64_t i = 0; i < f.padded; ++i) {
      Real norm = 0;
      for (int64_t d = 0; f.skip_origin && d < f.dims; ++d) norm += cloud[d * f.padded + i] * cloud[d * f.padded + i];
      // Below every distance: never picked.
      nearest[i] = i >= f.count || (f.skip_origin && norm <= Real(1e-3)) ? Real(-1) : Real(__builtin_inf());
    }
    int64_t pick = f.start[b];
    int64_t* out = f.out + b * f.samples;
    out[0] = pick;
    for (int64_t s = 1; s < f.samples; ++s) {
      spread<Real>(cloud + pick, f.padded, f.dims, query);
      out[s] = pick = farthest_pass<Real, D>(f, cloud, query, nearest);
    }
  }
}

template <class Real>
void farthest(const Farthest& f, const Work& w) {
  f.dims == 3 ? farthest_of<Real, 3>(f, w) : farthest_of<Real, 0>(f, w);
}

// ---- The k nearest: candidates nearer than a threshold are collected and thinned out now and then.

// Candidates in the order of their points. Distances are never negative, so their bits sort like integers.
template <class Real>
struct Candidates {
  using I = typename Vec<Real>::I;
  using UnalignedI = typename Vec<Real>::UnalignedI;
  using Int = typename Vec<Real>::Int;
  static constexpr int lanes = Vec<Real>::lanes;
  Int *key, *point;
  int64_t count;

  MMMAP_INLINE const UnalignedI* keys() {
    for (int lane = 0; lane < lanes; ++lane) key[count + lane] = Int((~uint64_t(0)) >> (65 - 8 * sizeof(Int)));
    return reinterpret_cast<const UnalignedI*>(key);
  }

  MMMAP_INLINE void add(V<Real> distance, int64_t first, uint32_t bits) {
    const I value = reinterpret_cast<I>(distance);
    for (; bits; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      key[count] = value[lane];
      point[count++] = Int(first + lane);
    }
  }

  // Keeps the k smallest and a few more; the threshold that no later candidate may reach.
  Real thin(int64_t k) {
    const UnalignedI* all = keys();
    const int64_t vectors = (count + lanes - 1) / lanes;
    const Real infinity = Real(__builtin_inf());
    Int low = -1, high;
    __builtin_memcpy(&high, &infinity, sizeof(Int));
    int64_t found = count;
    while (high - low > 1 && found > k + lanes / 2) {
      const Int middle = low + (high - low) / 2;
      I sum{};
      for (int64_t v = 0; v < vectors; ++v) sum -= all[v] <= (I{} + middle);
      int64_t below = 0;
      for (int lane = 0; lane < lanes; ++lane) below += sum[lane];
      if (below >= k)
        high = middle, found = below;
      else
        low = middle;
    }
    int64_t ties = found;
    if (high - low <= 1) {  // high is the k-th value; of those that equal it the first ones stay
      ties = k;
      for (int64_t i = 0; i < count; ++i) ties -= key[i] < high;
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < count; ++i) {
      const bool stays = key[i] < high || (key[i] == high && ties-- > 0);
      key[kept] = key[i], point[kept] = point[i];
      kept += stays;
    }
    count = kept;
    Real threshold;
    __builtin_memcpy(&threshold, &high, sizeof(Int));
    return threshold;
  }

  // Writes the k smallest in order: the rank of each is the number of those before it.
  void rank(int64_t k, Real* distance, int64_t* index) {
    const UnalignedI* all = keys();
    const int64_t vectors = (count + lanes - 1) / lanes;
    for (int64_t i = 0; i < count; ++i) {
      I sum{};
      const I own = I{} + key[i];
      I place = lane_numbers<Real>() - Int(i);
      for (int64_t v = 0; v < vectors; ++v, place += lanes) sum -= (all[v] < own) | ((all[v] == own) & (place < 0));
      int64_t before = 0;
      for (int lane = 0; lane < lanes; ++lane) before += sum[lane];
      if (before >= k) continue;
      __builtin_memcpy(distance + before, key + i, sizeof(Int));
      index[before] = point[i];
    }
  }
};

constexpr int kBlock = 4;  // vectors between two looks at the candidates

template <class Real>
int64_t most_candidates(const Neighbours& n) {
  return 2 * n.k + 32 + (kBlock + 1) * Vec<Real>::lanes;
}

template <class Real>
int64_t knn_bytes(const Neighbours& n, const Work&) {
  Arena arena{nullptr};
  arena.take<Real>(most_candidates<Real>(n));
  arena.take<Real>(most_candidates<Real>(n));
  arena.take<V<Real>>(n.dims);
  return arena.used;
}

template <class Real, int D>
void knn_of(const Neighbours& n, const Work& w) {
  constexpr int lanes = Vec<Real>::lanes;
  using Int = typename Candidates<Real>::Int;
  Arena arena{static_cast<char*>(w.scratch)};
  Candidates<Real> found{};
  found.key = arena.take<Int>(most_candidates<Real>(n));
  found.point = arena.take<Int>(most_candidates<Real>(n));
  auto* query = arena.take<V<Real>>(n.dims);
  for (int64_t item = w.begin; item < w.end; ++item) {
    const int64_t b = item / n.queries, m = item % n.queries;
    const Real* cloud = static_cast<const Real*>(n.points) + b * n.dims * n.padded;
    spread<Real>(static_cast<const Real*>(n.query) + b * n.dims * n.padded_queries + m, n.padded_queries, n.dims, query);
    Real threshold = Real(__builtin_inf());
    found.count = 0;
    for (int64_t first = 0; first < n.padded; first += kBlock * lanes) {
      V<Real> distance[kBlock];
      typename Vec<Real>::I near[kBlock], any{};
#pragma GCC unroll 4
      for (int u = 0; u < kBlock; ++u) {
        distance[u] = squared_distances<Real, D>(cloud, n.padded, n.dims, first + u * lanes, query);
        near[u] = distance[u] < splat<Real>(threshold);
        any |= near[u];
      }
      if (!lane_bits<Real>(any)) continue;
      for (int u = 0; u < kBlock; ++u) found.add(distance[u], first + u * lanes, lane_bits<Real>(near[u]));
      if (found.count >= 2 * n.k + 32) threshold = found.thin(n.k);
    }
    if (found.count > n.k + lanes) found.thin(n.k);
    found.rank(n.k, static_cast<Real*>(n.distance) + item * n.k, n.index + item * n.k);
  }
}

template <class Real>
void nearest_neighbours(const Neighbours& n, const Work& w) {
  n.dims == 3 ? knn_of<Real, 3>(n, w) : knn_of<Real, 0>(n, w);
}

// ---- The nearest: queries lie across the lanes.

constexpr int kQueries = 4;  // vectors of queries at a time

template <class Real>
int64_t nearest_bytes(const Neighbours& n, const Work&) {
  Arena arena{nullptr};
  arena.take<V<Real>>(n.dims * kQueries);
  return arena.used;
}

template <class Real, int D>
void nearest_of(const Neighbours& n, const Work& w) {
  using I = typename Vec<Real>::I;
  constexpr int lanes = Vec<Real>::lanes;
  const int64_t dims = D ? D : n.dims, blocks = (n.queries + kQueries * lanes - 1) / (kQueries * lanes);
  Arena arena{static_cast<char*>(w.scratch)};
  auto* query = arena.take<V<Real>>(dims * kQueries);
  for (int64_t item = w.begin; item < w.end; ++item) {
    const int64_t b = item / blocks, from = item % blocks * kQueries * lanes;
    const Real* cloud = static_cast<const Real*>(n.points) + b * dims * n.padded;
    const Real* queries = static_cast<const Real*>(n.query) + b * dims * n.padded_queries;
    for (int64_t d = 0; d < dims; ++d)
      for (int u = 0; u < kQueries; ++u)
        query[d * kQueries + u] = *reinterpret_cast<const typename Vec<Real>::Unaligned*>(
            queries + d * n.padded_queries + from + u * lanes);
    V<Real> best[kQueries];
    I where[kQueries];
    for (int u = 0; u < kQueries; ++u) best[u] = splat<Real>(Real(__builtin_inf())), where[u] = I{};
    for (int64_t i = 0; i < n.count; ++i) {
      V<Real> sum[kQueries] = {};
      for (int64_t d = 0; d < dims; ++d) {
        const V<Real> point = splat<Real>(cloud[d * n.padded + i]);
#pragma GCC unroll 4
        for (int u = 0; u < kQueries; ++u) sum[u] += (point - query[d * kQueries + u]) * (point - query[d * kQueries + u]);
      }
      const I now = I{} + typename Candidates<Real>::Int(i);
#pragma GCC unroll 4
      for (int u = 0; u < kQueries; ++u) {
        const auto nearer = sum[u] < best[u];
        best[u] = nearer ? sum[u] : best[u];
        where[u] = nearer ? now : where[u];
      }
    }
    for (int64_t i = 0; i < kQueries * lanes && from + i < n.queries; ++i) {
      Real distance = best[i / lanes][i % lanes];
      if (!(distance < Real(__builtin_inf()))) {  // not a number, or too far: what the distance to the first point is
        distance = 0;
        for (int64_t d = 0; d < dims; ++d) {
          const Real gap = cloud[d * n.padded] - queries[d * n.padded_queries + from + i];
          distance += gap * gap;
        }
      }
      static_cast<Real*>(n.distance)[b * n.queries + from + i] = distance;
      n.index[b * n.queries + from + i] = where[i / lanes][i % lanes];
    }
  }
}

template <class Real>
void nearest(const Neighbours& n, const Work& w) {
  n.dims == 3 ? nearest_of<Real, 3>(n, w) : nearest_of<Real, 0>(n, w);
}

// ---- Within a radius: the first k by index, then it is enough.

template <class Real>
int64_t ball_bytes(const Neighbours& n, const Work&) {
  Arena arena{nullptr};
  arena.take<V<Real>>(n.dims);
  return arena.used;
}

template <class Real>
void ball(const Neighbours& n, const Work& w) {
  constexpr int lanes = Vec<Real>::lanes;
  Arena arena{static_cast<char*>(w.scratch)};
  auto* query = arena.take<V<Real>>(n.dims);
  const V<Real> reach = splat<Real>(Real(n.radius) * Real(n.radius));
  for (int64_t item = w.begin; item < w.end; ++item) {
    const int64_t b = item / n.queries, m = item % n.queries;
    const Real* cloud = static_cast<const Real*>(n.points) + b * n.dims * n.padded;
    spread<Real>(static_cast<const Real*>(n.query) + b * n.dims * n.padded_queries + m, n.padded_queries, n.dims, query);
    int64_t* index = n.index + item * n.k;
    int64_t count = 0, closest = 0;
    Real smallest = Real(__builtin_inf());
    for (int64_t first = 0; first < n.padded && count < n.k; first += lanes) {
      const V<Real> distance = squared_distances<Real, 0>(cloud, n.padded, n.dims, first, query);
      for (uint32_t bits = lane_bits<Real>(distance <= reach); bits && count < n.k; bits &= bits - 1)
        index[count++] = first + __builtin_ctz(bits);
      if (count) continue;
      for (uint32_t bits = lane_bits<Real>(distance < splat<Real>(smallest)); bits; bits &= bits - 1) {
        const int lane = __builtin_ctz(bits);
        if (distance[lane] < smallest) smallest = distance[lane], closest = first + lane;
      }
    }
    if (count == 0) index[count++] = closest;
    for (; count < n.k; ++count) index[count] = index[0];
  }
}
