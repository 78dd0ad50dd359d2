// Sampling and neighbours of point clouds. Included by kernel.h alone, inside an anonymous namespace.
//
// Clouds are (batch, dims, padded): one array for each coordinate, padded with infinities to whole vectors. So all
// distances come from the same instructions, and the padding is never near.

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
    // The padding is below every distance: never picked.
    for (int64_t i = 0; i < f.padded; ++i) nearest[i] = i < f.count ? Real(__builtin_inf()) : Real(-1);
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

// Candidates in any order. Distances are never negative, so their bits sort like integers.
template <class Real>
struct Candidates {
  using I = typename Vec<Real>::I;
  using UnalignedI = typename Vec<Real>::UnalignedI;
  using Int = typename Vec<Real>::Int;
  static constexpr int lanes = Vec<Real>::lanes;
  static constexpr Int most = Int(~uint64_t(0) >> (65 - 8 * sizeof(Int)));
  Int *key, *point;
  int64_t count;
  // No point farther than this is among the k nearest, and none at this distance with an index of `last` or more.
  Real reach;
  Int last;

  void clear() { count = 0, reach = Real(__builtin_inf()), last = most; }

  MMMAP_INLINE const UnalignedI* keys() const { return reinterpret_cast<const UnalignedI*>(key); }
  MMMAP_INLINE const UnalignedI* points() const { return reinterpret_cast<const UnalignedI*>(point); }

  // Writes whole vectors: up to one vector after the candidates is overwritten.
  MMMAP_INLINE void add(I keys, I points, uint32_t bits) {
#if defined(__x86_64__) && !defined(__clang__) && MMMAP_BYTES == 64
    if constexpr (sizeof(Int) == 4) {
      keys = __builtin_ia32_compresssi512_mask(keys, keys, uint16_t(bits));
      points = __builtin_ia32_compresssi512_mask(points, points, uint16_t(bits));
    } else {
      typedef long long Quads __attribute__((vector_size(64)));
      keys = (I)__builtin_ia32_compressdi512_mask((Quads)keys, (Quads)keys, uint8_t(bits));
      points = (I)__builtin_ia32_compressdi512_mask((Quads)points, (Quads)points, uint8_t(bits));
    }
    __builtin_memcpy(key + count, &keys, sizeof(I));
    __builtin_memcpy(point + count, &points, sizeof(I));
    count += __builtin_popcount(bits);
#else
    for (; bits; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      key[count] = keys[lane];
      point[count++] = points[lane];
    }
#endif
  }

  // Halves low .. high, where `low` covers fewer than k candidates and `high` the `found` ones, until these are no more
  // than `enough` or `high` is the lowest that covers k.
  template <class Covered>
  MMMAP_INLINE Int cut(Int low, Int high, int64_t k, int64_t enough, int64_t& found, Covered covered) {
    while (high - low > 1 && found > enough) {
      const Int middle = low + (high - low) / 2;
      int64_t below = 0;
      for (int64_t v = 0; v * lanes < count; ++v)
        below += __builtin_popcount(lane_bits<Real>(covered(v, I{} + middle)));
      if (below >= k)
        high = middle, found = below;
      else
        low = middle;
    }
    return high;
  }

  // Keeps the k nearest and a few more.
  void thin(int64_t k) {
    Int low = most, high = 0;
    for (int64_t i = 0; i < count; ++i) low = key[i] < low ? key[i] : low, high = key[i] > high ? key[i] : high;
    for (int lane = 0; lane < lanes; ++lane) key[count + lane] = most;
    const UnalignedI *key_of = keys(), *point_of = points();
    int64_t found = count;
    const int64_t enough = k + lanes / 2;
    high = cut(low - 1, high, k, enough, found, [&](int64_t v, I middle) { return key_of[v] <= middle; });
    const I edge = I{} + high;
    last = most;
    if (found > enough)  // too many at the distance of the k-th
      last = cut(-1, most - 1, k, k, found, [&](int64_t v, I middle) {
        return (key_of[v] < edge) | ((key_of[v] == edge) & (point_of[v] <= middle));
      });
    const int64_t all = count;
    count = 0;
    for (int64_t v = 0; v * lanes < all; ++v) {
      const I value = key_of[v], where = point_of[v];
      add(value, where, lane_bits<Real>((value < edge) | ((value == edge) & (where <= last))));
    }
    __builtin_memcpy(&reach, &high, sizeof(Int));
  }

  // Writes the k smallest in order: the rank of each is the number of those before it.
  void rank(int64_t k, Real* distance, int64_t* index) {
    for (int64_t first = 0; first < count; first += lanes) {
      const I own = keys()[first / lanes], where = points()[first / lanes];
      I before{};
      for (int64_t i = 0; i < count; ++i) before -= (key[i] < own) | ((key[i] == own) & (point[i] < where));
      for (int lane = 0; lane < lanes && first + lane < count; ++lane) {
        if (before[lane] >= k) continue;
        __builtin_memcpy(distance + before[lane], key + first + lane, sizeof(Int));
        index[before[lane]] = point[first + lane];
      }
    }
  }
};

constexpr int kBlock = 4;  // vectors between two checks of the candidates

// As many are thinned out.
MMMAP_INLINE int64_t enough_candidates(const Neighbours& n) { return n.k + n.k / 2 + 32; }

template <class Real>
struct KnnScratch {
  using Int = typename Candidates<Real>::Int;
  Candidates<Real> found{}, boxes{};
  V<Real>* query;
  Real* bounds;

  KnnScratch(const Neighbours& n, Arena& arena) {
    // The last check comes after a block or a bucket, and whole vectors are written.
    const int64_t room = enough_candidates(n) + kBucket + Vec<Real>::lanes;
    static_assert(kBlock * Vec<Real>::lanes <= kBucket);
    found.key = arena.take<Int>(room);
    found.point = arena.take<Int>(room);
    query = arena.take<V<Real>>(n.dims);
    boxes.key = arena.take<Int>(n.padded_boxes + Vec<Real>::lanes);
    boxes.point = arena.take<Int>(n.padded_boxes + Vec<Real>::lanes);
    bounds = arena.take<Real>(n.padded_boxes);
  }
};

template <class Real>
int64_t knn_bytes(const Neighbours& n, const Work&) {
  Arena arena{nullptr};
  KnnScratch<Real>(n, arena);
  return arena.used;
}

// All points, in the order of their indices.
template <class Real, int D>
MMMAP_INLINE void search_all(const Neighbours& n, const Real* cloud, KnnScratch<Real>& s) {
  constexpr int lanes = Vec<Real>::lanes;
  using I = typename Vec<Real>::I;
  for (int64_t first = 0; first < n.padded; first += kBlock * lanes) {
    V<Real> distance[kBlock];
    I near[kBlock], any{};
#pragma GCC unroll 4
    for (int u = 0; u < kBlock; ++u) {
      distance[u] = squared_distances<Real, D>(cloud, n.padded, n.dims, first + u * lanes, s.query);
      near[u] = distance[u] < splat<Real>(s.found.reach);
      any |= near[u];
    }
    if (!lane_bits<Real>(any)) continue;
    for (int u = 0; u < kBlock; ++u) {
      const I points = lane_numbers<Real>() + typename Vec<Real>::Int(first + u * lanes);
      s.found.add(reinterpret_cast<I>(distance[u]), points, lane_bits<Real>(near[u]));
    }
    if (s.found.count >= enough_candidates(n)) s.found.thin(n.k);
  }
}

// No point of a box is nearer than its bound, rounding included: both come from the same operations, and each gap of a
// bound is no larger.
template <class Real>
MMMAP_INLINE void bound_boxes(const Neighbours& n, const Real* boxes, const V<Real>* query, Real* bounds) {
  for (int64_t first = 0; first < n.padded_boxes; first += Vec<Real>::lanes) {
    V<Real> sum{};
    for (int64_t d = 0; d < 3; ++d) {
      const auto corner = [&](int64_t row) __attribute__((always_inline)) {
        return *reinterpret_cast<const typename Vec<Real>::Unaligned*>(boxes + row * n.padded_boxes + first);
      };
      const V<Real> outside = Vec<Real>::larger(corner(d) - query[d], query[d] - corner(3 + d));
      const V<Real> gap = at_least<Real>(outside, 0);
      sum += gap * gap;
    }
    *reinterpret_cast<typename Vec<Real>::Unaligned*>(bounds + first) = sum;
  }
}

// The index of the smallest number in whole vectors.
template <class Real>
MMMAP_INLINE int64_t smallest_of(const Real* values, int64_t count) {
  constexpr int lanes = Vec<Real>::lanes;
  const auto* all = reinterpret_cast<const typename Vec<Real>::Unaligned*>(values);
  V<Real> best = all[0];
  typename Vec<Real>::I where{}, now{};
  for (int64_t v = 1; v * lanes < count; ++v) {
    now += 1;
    const V<Real> value = all[v];
    const auto smaller = value < best;
    best = smaller ? value : best;
    where = smaller ? now : where;
  }
  int lane = 0;
  for (int i = 1; i < lanes; ++i) lane = best[i] < best[lane] ? i : lane;
  return where[lane] * lanes + lane;
}

// Indices come in any order, so that a point as far as the k-th may take its place.
template <class Real>
MMMAP_INLINE void search_bucket(const Neighbours& n, const Real* cloud, int64_t b, int64_t box, KnnScratch<Real>& s) {
  using I = typename Vec<Real>::I;
  const auto* order = static_cast<const typename Vec<Real>::Int*>(n.order) + b * n.padded;
  for (int64_t first = box * kBucket; first < (box + 1) * kBucket; first += Vec<Real>::lanes) {
    const V<Real> distance = squared_distances<Real, 3>(cloud, n.padded, 3, first, s.query);
    const I points = *reinterpret_cast<const typename Vec<Real>::UnalignedI*>(order + first);
    const I near = (distance < s.found.reach) | ((distance == s.found.reach) & (points < s.found.last));
    s.found.add(reinterpret_cast<I>(distance), points, lane_bits<Real>(near));
  }
  if (s.found.count >= enough_candidates(n)) s.found.thin(n.k);
}

// The nearest buckets until there are k candidates, then all that are not too far. Three dims.
template <class Real>
MMMAP_INLINE void search_buckets(const Neighbours& n, const Real* cloud, int64_t b, KnnScratch<Real>& s) {
  constexpr int lanes = Vec<Real>::lanes;
  using I = typename Vec<Real>::I;
  bound_boxes<Real>(n, static_cast<const Real*>(n.boxes) + b * 6 * n.padded_boxes, s.query, s.bounds);
  for (int64_t i = 0; i < n.padded_boxes && s.found.count < n.k; ++i) {
    const int64_t box = smallest_of<Real>(s.bounds, n.padded_boxes);
    s.bounds[box] = Real(__builtin_inf());
    search_bucket<Real>(n, cloud, b, box, s);
  }
  s.found.thin(n.k);
  s.boxes.clear();
  for (int64_t first = 0; first < n.padded_boxes; first += lanes) {
    const V<Real> bound = *reinterpret_cast<const typename Vec<Real>::Unaligned*>(s.bounds + first);
    s.boxes.add(reinterpret_cast<I>(bound), lane_numbers<Real>() + typename Vec<Real>::Int(first),
                lane_bits<Real>(bound <= s.found.reach));
  }
  for (int64_t i = 0; i < s.boxes.count; ++i) {
    Real bound;
    __builtin_memcpy(&bound, s.boxes.key + i, sizeof(Real));
    if (bound <= s.found.reach) search_bucket<Real>(n, cloud, b, s.boxes.point[i], s);
  }
}

template <class Real, int D, bool kBuckets = false>
void knn_of(const Neighbours& n, const Work& w) {
  Arena arena{static_cast<char*>(w.scratch)};
  KnnScratch<Real> s(n, arena);
  for (int64_t item = w.begin; item < w.end; ++item) {
    const int64_t b = item / n.queries, m = item % n.queries;
    const Real* cloud = static_cast<const Real*>(n.points) + b * n.dims * n.padded;
    const Real* query = static_cast<const Real*>(n.query) + b * n.dims * n.padded_queries + m;
    spread<Real>(query, n.padded_queries, n.dims, s.query);
    s.found.clear();
    if constexpr (kBuckets)
      search_buckets<Real>(n, cloud, b, s);
    else
      search_all<Real, D>(n, cloud, s);
    if (s.found.count > n.k + Vec<Real>::lanes) s.found.thin(n.k);
    s.found.rank(n.k, static_cast<Real*>(n.distance) + item * n.k, n.index + item * n.k);
  }
}

template <class Real>
void nearest_neighbours(const Neighbours& n, const Work& w) {
  if (n.boxes)
    knn_of<Real, 3, true>(n, w);
  else
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

// ---- Within a radius: the first k by index.

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
