"""The operators of a Mamba block, scan and convolution, in one or both directions, over exchangeable backends.

Importing this package needs torch alone.
"""

from mmmap.ops.backends import available_backends, use_backend
from mmmap.ops.bidirectional import bidirectional_conv1d, bidirectional_scan
from mmmap.ops.causal_conv1d import causal_conv1d
from mmmap.ops.selective_scan import selective_scan

__all__ = [
    'available_backends',
    'bidirectional_conv1d',
    'bidirectional_scan',
    'causal_conv1d',
    'selective_scan',
    'use_backend',
]
