"""The Chamfer distance."""

from __future__ import annotations

import torch
from torch import Tensor

from mmmap.ops.points import plain_torch
from mmmap.ops.points.argument_checks import check_clouds, common_type, resolve_backend
from mmmap.ops.torch_library import define_backward, define_differentiable


def chamfer_distance(a: Tensor, b: Tensor, backend: str = 'auto') -> tuple[Tensor, Tensor]:
    """Squared distance of each point of two clouds to the nearest point of the other cloud; differentiable in both.

    Each distance has a gradient in its two points alone (of equally near points, the one with the lowest index), which
    is 0 where the two coincide. Values that are not finite give distances that are not finite, and no error.

    Args:
        a: ``(B, N, D)``, any strides; float16 and bfloat16 are computed in float32.
        b: ``(B, M, D)``.
        backend: ``'auto'``, ``'native'`` (CPU) or ``'torch'``.

    Returns:
        ``(B, N)`` for the points of ``a`` and ``(B, M)`` for those of ``b``, float64 if an argument is, else float32.

    Raises:
        TypeError: A cloud is not a real floating-point tensor.
        ValueError: A shape, device or backend does not fit.
    """
    check_clouds('chamfer_distance', a=a, b=b)
    backend = resolve_backend('chamfer_distance', backend, a.device.type)
    dist_a, _, dist_b, _ = torch.ops.mmmap.chamfer.default(*common_type(a, b), backend)
    return dist_a, dist_b


def _forward(a, b, backend):
    if backend == 'native':
        return torch.ops.mmmap_native.chamfer.default(a, b)
    return plain_torch.chamfer(a, b)


def _forward_fake(a, b, backend):
    shape_a, shape_b = a.shape[:2], b.shape[:2]
    index = [a.new_empty(shape, dtype=torch.int64) for shape in (shape_a, shape_b)]
    return a.new_empty(shape_a), index[0], a.new_empty(shape_b), index[1]


def _backward_fake(grad_a, grad_b, a, b, index_a, index_b):
    return a.new_empty(a.shape), b.new_empty(b.shape)


def _setup_context(ctx, inputs, output) -> None:
    a, b, _ = inputs
    _, index_a, _, index_b = output
    ctx.mark_non_differentiable(index_a, index_b)
    ctx.save_for_backward(a, b, index_a, index_b)


def _autograd(ctx, grad_a, _index_a, grad_b, _index_b):
    grads = torch.ops.mmmap.chamfer_backward.default(grad_a, grad_b, *ctx.saved_tensors)
    return (*grads, None)


define_backward(
    'chamfer_backward(Tensor grad_a, Tensor grad_b, Tensor a, Tensor b, Tensor index_a, Tensor index_b) '
    '-> (Tensor, Tensor)',
    plain_torch.chamfer_backward,
    _backward_fake,
)
define_differentiable(
    'chamfer(Tensor a, Tensor b, str backend) -> (Tensor, Tensor, Tensor, Tensor)',
    _forward,
    _forward_fake,
    _setup_context,
    _autograd,
)
