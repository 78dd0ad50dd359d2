"""The native operators on arguments of any kind: right values or a clear error, never a crash or a stray access.

    python tests/campaign/operator_calls.py NUMBER SEED

makes so many calls in this process and prints what was wrong, as JSON.
"""

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Where the trial under AddressSanitizer has its own build of the package, this one must not be found before it.
sys.path.insert(0, os.environ.get('CAMPAIGN_PACKAGE', str(ROOT)))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from mmmap import ops  # noqa: E402
from mmmap.ops import points  # noqa: E402

# Relative to the largest value of a result.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
_DTYPES = (torch.float32, torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Draw:
    """Draws arguments.

    Args:
        seed (int): Decides all.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = self.random.choice(_DTYPES)
        self.mixed = self.random.random() < 0.3

    def size(self, most: int) -> int:
        """A length, most often a small one; the borders of vectors and chunks are likely."""
        near = self.random.choice([1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200])
        return max(1, min(most, near))

    def tensor(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        """Normal values with strides of some kind."""
        dtype = self.random.choice(_DTYPES) if self.mixed else self.dtype
        kind = self.random.choice(['dense', 'dense', 'permuted', 'sliced', 'offset', 'expanded', 'flipped'])
        whole = torch.randn([2 * n + 1 if kind == 'sliced' else n for n in shape], generator=self.generator)
        whole = (whole * scale + shift).to(dtype)
        if kind == 'permuted':
            order = list(range(len(shape)))
            self.random.shuffle(order)
            inverse = sorted(range(len(order)), key=order.__getitem__)
            return whole.permute(order).contiguous().permute(inverse)
        if kind == 'sliced':
            return whole[tuple(slice(1, None, 2) for _ in shape)]
        if kind == 'offset':
            flat = torch.empty(whole.numel() + 3, dtype=dtype)
            flat[3:] = whole.flatten()
            return flat[3:].view(shape)
        if kind == 'expanded':
            axis = self.random.randrange(len(shape))
            return whole.narrow(axis, 0, 1).expand(shape)
        return whole.flip(0).flip(0) if kind == 'flipped' else whole

    def maybe(self, *shape: int) -> Tensor | None:
        """A tensor or None."""
        return self.tensor(*shape) if self.random.random() < 0.6 else None


def _scan(draw: Draw) -> tuple[Callable, dict]:
    batch, channels, states, length = (
        draw.size(3),
        draw.size(40),
        draw.random.choice([1, 2, 4, 8, 16, 17]),
        draw.size(140),
    )
    groups = draw.random.choice([None, 1, 2])
    weights = (batch, states, length)
    if groups is not None and channels % groups == 0:
        weights = (batch, groups, states, length)
    return ops.selective_scan, dict(
        u=draw.tensor(batch, channels, length),
        delta=draw.tensor(batch, channels, length, scale=0.3),
        A=draw.tensor(channels, states, scale=0.1, shift=-1),
        B=draw.tensor(*weights),
        C=draw.tensor(*weights),
        D=draw.maybe(channels),
        z=draw.maybe(batch, channels, length),
        delta_bias=draw.maybe(channels),
        delta_softplus=True,
        reverse=draw.random.random() < 0.5,
    )


def _bidirectional_scan(draw: Draw) -> tuple[Callable, dict]:
    batch, channels, states, length = draw.size(3), draw.size(40), draw.random.choice([1, 4, 16]), draw.size(140)
    return ops.bidirectional_scan, dict(
        u=draw.tensor(batch, 2, channels, length),
        delta=draw.tensor(batch, 2, channels, length, scale=0.3),
        A=draw.tensor(2, channels, states, scale=0.1, shift=-1),
        B=draw.tensor(batch, 2, states, length),
        C=draw.tensor(batch, 2, states, length),
        D=draw.maybe(2, channels),
        z=draw.maybe(batch, channels, length),
        delta_bias=draw.maybe(2, channels),
        delta_softplus=True,
    )


def _conv(draw: Draw) -> tuple[Callable, dict]:
    batch, channels, length = draw.size(3), draw.size(70), draw.size(200)
    both = draw.random.random() < 0.5
    shape = (2, channels) if both else (channels,)
    arguments = dict(
        x=draw.tensor(batch, channels, length),
        weight=draw.tensor(*shape, draw.random.randint(1, 6)),
        bias=draw.maybe(*shape),
        activation=draw.random.choice([None, 'silu']),
    )
    if both:
        return ops.bidirectional_conv1d, arguments
    return ops.causal_conv1d, arguments | dict(reverse=draw.random.random() < 0.5)


def _points(draw: Draw) -> tuple[Callable, dict]:
    batch, queries, count, dims = draw.size(3), draw.size(70), draw.size(200), draw.random.choice([1, 2, 3, 3, 7])
    query, cloud = draw.tensor(batch, queries, dims), draw.tensor(batch, count, dims)
    k = draw.random.randint(1, count)
    indices = torch.randint(0, count, (batch, queries, 2), generator=draw.generator)
    return draw.random.choice(
        [
            (points.farthest_point_sample, dict(points=cloud, num_samples=k, start=draw.random.randrange(count))),
            (points.knn, dict(query=query, points=cloud, k=k)),
            (points.ball_query, dict(query=query, points=cloud, radius=draw.random.uniform(0, 2), k=k)),
            (points.chamfer_distance, dict(a=query, b=cloud)),
            (points.gather_points, dict(features=cloud, indices=indices)),
            (
                points.three_interpolate,
                dict(query=query, points=cloud, features=draw.tensor(batch, count, 5), k=min(3, count)),
            ),
        ]
    )


def _spoil(draw: Draw, arguments: dict[str, Any]) -> str:
    """Make one argument impossible, in place; returns how."""
    name = draw.random.choice([name for name, value in arguments.items() if isinstance(value, Tensor)])
    value = arguments[name]
    axis = draw.random.randrange(value.dim())
    kind, spoilt = draw.random.choice(
        [
            ('one dimension more', value.unsqueeze(0)),
            ('one dimension less', value.select(axis, 0)),
            ('empty', value.narrow(axis, 0, 0)),
            ('a whole number type', value.int()),
            ('complex', torch.complex(value.float(), value.float())),
            ('no tensor', value.tolist()),
            ('another length', torch.cat([value, value.narrow(axis, 0, 1)], axis)),
            ('on another device', torch.empty(value.shape, dtype=value.dtype, device='meta')),
        ]
    )
    arguments[name] = spoilt
    return f'{name}: {kind}'


def call(number: int, seed: int) -> str | None:
    """Make a call; what was wrong with it."""
    draw = Draw(seed * 1_000_003 + number)
    operator, arguments = draw.random.choice([_scan, _bidirectional_scan, _conv, _points])(draw)
    how = ''
    if draw.random.random() < 0.25:
        how = _spoil(draw, arguments)
    label = f'call {number}, {operator.__name__} {how}'
    native, slow = (
        ('native', 'torch') if operator.__module__.startswith('mmmap.ops.points') else ('native', 'reference')
    )
    try:
        ours = _differentiate(operator, arguments, native, number)
    except (TypeError, ValueError, IndexError) as error:
        if not how:
            return f'{label}: {type(error).__name__}: {error}'
        # An index may be out of range, or a length free, so that the spoilt call is a right one.
        return None if operator.__name__ in str(error) and '\n' not in str(error) else f'{label}: unclear: {error!r}'
    except Exception as error:
        return f'{label}: {type(error).__name__}: {" ".join(str(error).split())[:200]}'
    try:
        theirs = _differentiate(operator, _exact(arguments), slow, number)
    except Exception as error:
        return f'{label}: accepted, though the reference says {" ".join(str(error).split())[:200]}'
    return _compare(label, operator, arguments, ours, theirs)


def _exact(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same values, dense and in float64."""
    return {
        name: value.double().contiguous() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in arguments.items()
    }


def _differentiate(operator: Callable, arguments: dict[str, Any], backend: str, seed: int) -> list[Tensor]:
    """Outputs and, where there are some, gradients."""
    arguments = dict(arguments)
    leaves = []
    for name, value in arguments.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.device.type == 'cpu':
            arguments[name] = value.detach().requires_grad_()
            leaves.append(arguments[name])
    out = operator(**arguments) if operator is points.gather_points else operator(**arguments, backend=backend)
    outputs = list(out) if isinstance(out, tuple) else [out]
    smooth = [output for output in outputs if output.requires_grad]
    if not smooth:
        return outputs
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(output.shape, generator=generator, dtype=torch.float64) for output in smooth]
    loss = sum((output.double() * weight).sum() for output, weight in zip(smooth, weights, strict=True))
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [*outputs, *(gradient for gradient in gradients if gradient is not None)]


def _compare(label: str, operator: Callable, arguments: dict, ours: list[Tensor], theirs: list[Tensor]) -> str | None:
    floating = [value.dtype for value in arguments.values() if isinstance(value, Tensor) and value.is_floating_point()]
    tolerance = max((_TOLERANCE[dtype] for dtype in floating), default=0)
    if len(ours) != len(theirs):
        return f'{label}: {len(ours)} results in place of {len(theirs)}'
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.shape != b.shape:
            return f'{label}: result {index} is {tuple(a.shape)}, not {tuple(b.shape)}'
        if not a.is_floating_point():
            # In another precision other points may be the nearest; those of float64 must agree.
            if tolerance <= _TOLERANCE[torch.float64] and not torch.equal(a, b):
                return f'{label}: result {index} has other indices'
            continue
        if operator is points.chamfer_distance and tolerance > _TOLERANCE[torch.float64] and index > 1:
            continue  # Its gradient goes to the nearest point.
        error = (a.double() - b).abs().amax() / b.abs().amax().clamp(min=1) if b.numel() else 0
        if not error <= tolerance:
            return f'{label}: result {index} is off by {float(error):.1e}, {sorted(map(str, set(floating)))}'
    return None


def main() -> None:
    """Make the calls."""
    number, seed = int(sys.argv[1]), int(sys.argv[2])
    if 'CAMPAIGN_PACKAGE' in os.environ:
        assert ops.__file__.startswith(os.environ['CAMPAIGN_PACKAGE']), ops.__file__
    torch.set_num_threads(1)
    found = []
    for index in range(number):
        # Where it was, should it crash.
        print(index, flush=True)
        found.append(call(index, seed))
    print(json.dumps([wrong for wrong in found if wrong is not None]))


if __name__ == '__main__':
    main()
