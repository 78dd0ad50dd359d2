// The operators of point clouds: tensors in, work split over threads, tensors out.

#include "host.h"

#include <limits>

namespace mmmap {
namespace {

// What the kernels read in one go, so that they need no rest.
constexpr int64_t kCloudPad = 64;

// (batch, points, dims) as (batch, dims, padded), filled up with infinities.
Tensor by_coordinate(const Tensor& cloud) {
  const int64_t batch = cloud.size(0), count = cloud.size(1), dims = cloud.size(2);
  const int64_t padded = ceil_div(count, kCloudPad) * kCloudPad;
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

Tensor farthest(const Tensor& points, int64_t samples, const Tensor& start_, bool skip_origin) {
  const Tensor rows = by_coordinate(points), start = start_.contiguous();
  const Tensor out = at::empty({points.size(0), samples}, start.options());
  Farthest f{};
  f.count = points.size(1), f.padded = rows.size(2), f.dims = rows.size(1), f.samples = samples;
  f.skip_origin = skip_origin, f.points = rows.data_ptr();
  f.start = start.data_ptr<int64_t>(), f.out = out.data_ptr<int64_t>();
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
  if (k == 1)
    call.nearest();
  else
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
  m.def("farthest_point_sample(Tensor points, int num_samples, Tensor start, bool skip_origin) -> Tensor");
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
