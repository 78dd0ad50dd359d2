"""Operators of Mamba blocks and of point clouds, each with several backends; importing them needs torch alone."""

from mmmap.ops.backends import available_backends, use_backend
from mmmap.ops.bidirectional import bidirectional_conv1d, bidirectional_scan
from mmmap.ops.causal_conv1d import causal_conv1d
from mmmap.ops.points import (
    ball_query,
    chamfer_distance,
    farthest_point_sample,
    gather_points,
    knn,
    three_interpolate,
)
from mmmap.ops.selective_scan import selective_scan

__all__ = [
    'available_backends',
    'ball_query',
    'bidirectional_conv1d',
    'bidirectional_scan',
    'causal_conv1d',
    'chamfer_distance',
    'farthest_point_sample',
    'gather_points',
    'knn',
    'selective_scan',
    'three_interpolate',
    'use_backend',
]
