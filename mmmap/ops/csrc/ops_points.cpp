// The operators of point clouds: tensors in, work split over threads, tensors out.

#include "host.h"

#include <limits>
#include <type_traits>

namespace mmmap {
namespace {

// (batch, points, dims) as (batch, dims, padded), filled up with infinities.
Tensor by_coordinate(const Tensor& cloud) {
  const int64_t batch = cloud.size(0), count = cloud.size(1), dims = cloud.size(2);
  const int64_t padded = ceil_div(count, kBucket) * kBucket;  // whole buckets
  const Tensor rows = at::empty({batch, dims, padded}, cloud.options());
  with_type(cloud.scalar_type(), [&](auto real) {
    using Real = decltype(real);
    const Real* from = cloud.data_ptr<Real>();
    Real* to = rows.data_ptr<Real>();
    const int64_t by_cloud = cloud.stride(0), by_point = cloud.stride(1), by_dim = cloud.stride(2);
    at::parallel_for(0, batch * dims, std::max<int64_t>(1, 16384 / padded), [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const Real* source = from + row / dims * by_cloud + row % dims * by_dim;
        for (int64_t i = 0; i < count; ++i) to[row * padded + i] = source[i * by_point];
        std::fill(to + row * padded + count, to + (row + 1) * padded, std::numeric_limits<Real>::infinity());
      }
    });
  });
  return rows;
}

// Sorts the points of a cloud of three dims into buckets of neighbours.
template <class Real>
struct Splitter {
  using Int = std::conditional_t<sizeof(Real) == 4, int32_t, int64_t>;
  struct Item {
    Real at[3];
    Int index;
  };
  std::vector<Item> items, spare;
  std::vector<uint8_t> slice;
  Real* corners;  // (2, 3, padded_boxes), to be filled
  int64_t padded_boxes;

  // Halves the items first .. last - 1 across their widest extent until they fill buckets, the last of all in part. The
  // middle is exact in number, not in place. Items keep their order otherwise, so each bucket is in that of indices.
  void split(int64_t first, int64_t last) {
    Item low = items[first], high = low;
    for (int64_t i = first; i < last; ++i)
      for (int64_t d = 0; d < 3; ++d)
        low.at[d] = std::min(low.at[d], items[i].at[d]), high.at[d] = std::max(high.at[d], items[i].at[d]);
    if (last - first <= kBucket) {
      for (int64_t d = 0; d < 3; ++d) {
        corners[d * padded_boxes + first / kBucket] = low.at[d];
        corners[(3 + d) * padded_boxes + first / kBucket] = high.at[d];
      }
      return;
    }
    const int64_t middle = first + ceil_div(last - first, kBucket) / 2 * kBucket;
    int64_t widest = 0;
    for (int64_t d = 1; d < 3; ++d)
      if (high.at[d] - low.at[d] > high.at[widest] - low.at[widest]) widest = d;
    const Real from = low.at[widest], scale = 255 / (high.at[widest] - from);
    if (scale < std::numeric_limits<Real>::infinity()) {  // else all are in one place
      int64_t counts[256] = {};
      for (int64_t i = first; i < last; ++i) ++counts[slice[i] = uint8_t((items[i].at[widest] - from) * scale)];
      int cut = 0;
      int64_t rest = middle - first;  // of the slice that is cut, what goes below
      while (rest >= counts[cut]) rest -= counts[cut++];
      int64_t to[2] = {middle, first};
      for (int64_t i = first; i < last; ++i) {
        const bool below = (slice[i] < cut) | ((slice[i] == cut) & (rest > 0));
        rest -= slice[i] == cut;
        spare[to[below]++] = items[i];
      }
      std::copy(spare.begin() + first, spare.begin() + last, items.begin() + first);
    }
    split(first, middle);
    split(middle, last);
  }
};

// The fields of Neighbours for buckets.
struct Buckets {
  Tensor points, order, boxes;

  // For fewer queries, a search of all points is faster.
  static bool pay_off(const Neighbours& n) { return n.dims == 3 && n.count >= 256 && n.queries >= 128; }

  explicit Buckets(const Tensor& cloud) {
    const int64_t batch = cloud.size(0), count = cloud.size(1), padded = ceil_div(count, kBucket) * kBucket;
    const int64_t padded_boxes = ceil_div(padded / kBucket, kLanePad) * kLanePad;
    with_type(cloud.scalar_type(), [&](auto real) {
      using Real = decltype(real);
      using Int = typename Splitter<Real>::Int;
      const Real infinity = std::numeric_limits<Real>::infinity();
      points = at::full({batch, 3, padded}, infinity, cloud.options());
      boxes = at::full({batch, 6, padded_boxes}, infinity, cloud.options());
      const auto type = cloud.options().dtype(sizeof(Int) == 4 ? at::kInt : at::kLong);
      order = at::full({batch, padded}, std::numeric_limits<Int>::max(), type);
      const Real* from = cloud.data_ptr<Real>();
      const int64_t by_cloud = cloud.stride(0), by_point = cloud.stride(1), by_dim = cloud.stride(2);
      at::parallel_for(0, batch, 1, [&](int64_t first, int64_t last) {
        Splitter<Real> s;
        s.items.resize(count), s.spare.resize(count), s.slice.resize(count), s.padded_boxes = padded_boxes;
        for (int64_t b = first; b < last; ++b) {
          for (int64_t i = 0; i < count; ++i) {
            const Real* point = from + b * by_cloud + i * by_point;
            s.items[i] = {{point[0], point[by_dim], point[2 * by_dim]}, Int(i)};
          }
          s.corners = boxes.data_ptr<Real>() + b * 6 * padded_boxes;
          s.split(0, count);
          Real* rows = points.data_ptr<Real>() + b * 3 * padded;
          Int* indices = order.data_ptr<Int>() + b * padded;
          for (int64_t i = 0; i < count; ++i) {
            for (int64_t d = 0; d < 3; ++d) rows[d * padded + i] = s.items[i].at[d];
            indices[i] = s.items[i].index;
          }
        }
      });
    });
  }
};

Tensor farthest(const Tensor& points, int64_t samples, const Tensor& start_) {
  const Tensor rows = by_coordinate(points), start = start_.contiguous();
  const Tensor out = at::empty({points.size(0), samples}, start.options());
  Farthest f{};
  f.count = points.size(1), f.padded = rows.size(2), f.dims = rows.size(1), f.samples = samples;
  f.points = rows.data_ptr(), f.start = start.data_ptr<int64_t>(), f.out = out.data_ptr<int64_t>();
  run(kernels_of(points.scalar_type()).farthest, f, {points.size(0), points.numel() * samples});
  return out;
}

// Holds the tensors that the problem points into.
struct NeighboursCall {
  Tensor query, points, distance, index;
  Neighbours n{};
  int64_t batch, operations;

  NeighboursCall(const Tensor& query_, const Tensor& points_, int64_t k)
      : query(by_coordinate(query_)),
        points(by_coordinate(points_)),
        distance(at::empty({query_.size(0), query_.size(1), k}, query_.options())),
        index(at::empty({query_.size(0), query_.size(1), k}, query_.options().dtype(at::kLong))),
        batch(query_.size(0)),
        operations(query_.numel() * points_.size(1)) {
    n.queries = query_.size(1), n.count = points_.size(1), n.dims = query_.size(2), n.k = k;
    n.padded_queries = query.size(2), n.padded = points.size(2);
    n.query = query.data_ptr(), n.points = points.data_ptr();
    n.distance = distance.data_ptr(), n.index = index.data_ptr<int64_t>();
  }

  const Kernels& kernels() const { return kernels_of(query.scalar_type()); }

  void nearest() {
    const int64_t blocks = ceil_div(n.queries, 4 * kernels().lanes);
    run(kernels().nearest, n, {batch * blocks, operations});
  }
};

std::tuple<Tensor, Tensor> knn(const Tensor& query, const Tensor& points, int64_t k) {
  NeighboursCall call(query, points, k);
  if (k == 1) {
    call.nearest();
    return {call.distance, call.index};
  }
  std::optional<Buckets> buckets;
  if (Buckets::pay_off(call.n)) {
    buckets.emplace(points);
    call.n.points = buckets->points.data_ptr(), call.n.order = buckets->order.data_ptr();
    call.n.boxes = buckets->boxes.data_ptr(), call.n.padded_boxes = buckets->boxes.size(2);
  }
  run(call.kernels().knn, call.n, {call.batch * call.n.queries, call.operations});
  return {call.distance, call.index};
}

Tensor ball_query(const Tensor& query, const Tensor& points, double radius, int64_t k) {
  NeighboursCall call(query, points, k);
  call.n.radius = radius;
  run(call.kernels().ball, call.n, {call.batch * call.n.queries, call.operations});
  return call.index;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> chamfer(const Tensor& a, const Tensor& b) {
  NeighboursCall from_a(a, b, 1), from_b(b, a, 1);
  from_a.nearest(), from_b.nearest();
  return {from_a.distance.squeeze(2), from_a.index.squeeze(2), from_b.distance.squeeze(2), from_b.index.squeeze(2)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmmap_native, m) {
  m.def("farthest_point_sample(Tensor points, int num_samples, Tensor start) -> Tensor");
  m.def("knn(Tensor query, Tensor points, int k) -> (Tensor, Tensor)");
  m.def("ball_query(Tensor query, Tensor points, float radius, int k) -> Tensor");
  m.def("chamfer(Tensor a, Tensor b) -> (Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(mmmap_native, CPU, m) {
  m.impl("farthest_point_sample", farthest);
  m.impl("knn", knn);
  m.impl("ball_query", ball_query);
  m.impl("chamfer", chamfer);
}

}  // namespace mmmap
