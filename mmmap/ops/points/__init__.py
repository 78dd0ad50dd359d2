"""Operators on point clouds ``(B, N, D)``: sampling, neighbours, interpolation and the Chamfer distance.

They run in native kernels on a CPU if these are built, else in plain torch.
"""

from mmmap.ops.points.argument_checks import available_point_backends
from mmmap.ops.points.chamfer import chamfer_distance
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
