// All kernels for one instruction set. The including file sets MMMAP_BYTES (the vector width), MMMAP_KERNELS (the name
// of the table that it defines) and the target of the compiler, before anything else is included.
#pragma once

#include "kernel_api.h"

namespace mmmap {
namespace {

#include "vec.h"

#include "tile.h"

#include "kernel_scan.h"

#include "kernel_conv.h"

#include "kernel_points.h"

template <class Real>
constexpr Kernels kernels_for() {
  return {
      Vec<Real>::lanes,
      {scan_forward_bytes<Real>, scan_forward<Real>},
      {scan_backward_bytes<Real>, scan_backward<Real>},
      {conv_bytes<Real>, conv_forward<Real>},
      {conv_bytes<Real>, conv_backward<Real>},
      {farthest_bytes<Real>, farthest<Real>},
      {knn_bytes<Real>, nearest_neighbours<Real>},
      {nearest_bytes<Real>, nearest<Real>},
      {ball_bytes<Real>, ball<Real>},
  };
}

}  // namespace

extern const KernelSet MMMAP_KERNELS = {kernels_for<float>(), kernels_for<double>()};

}  // namespace mmmap
