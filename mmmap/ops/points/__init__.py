"""Operators on point clouds ``(B, N, D)``: sampling, neighbours, interpolation and the Chamfer distance.

On a CPU they run in native kernels where these are built, else in plain torch as on every other device.
"""

from mmmap.ops.points.chamfer import chamfer_distance
from mmmap.ops.points.common import available_point_backends
from mmmap.ops.points.features import gather_points, three_interpolate
from mmmap.ops.points.neighbours import ball_query, knn
from mmmap.ops.points.sampling import farthest_point_sample

__all__ = [
    'available_point_backends',
    'ball_query',
    'chamfer_distance',
    'farthest_point_sample',
    'gather_points',
    'knn',
    'three_interpolate',
]
