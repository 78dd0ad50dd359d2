"""Both directions in one operator: equal to two scans (convolutions) with flipped copies."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from scan_cases import TOLERANCE, assert_close, backend_params, convert, run
from torch.utils.flop_counter import FlopCounterMode

from mmmap.ops import bidirectional_conv1d, bidirectional_scan, causal_conv1d, selective_scan

ALL = backend_params('reference', 'native', 'torch')
FAST = backend_params('native', 'torch')


def two_direction_inputs(batch=2, channels=5, length=7, states=4, gate=True, skip=True, bias=True, layout='stacked'):
    """Arguments of bidirectional_scan in float64, by name.

    Layouts: 'stacked' (each direction dense, channels side by side), 'joined' (the channels of both directions side by
    side), 'length' (positions side by side).
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def sequence(rows):
        if layout == 'stacked':
            return normal(2, batch, length, rows).permute(1, 0, 3, 2)
        return (
            normal(batch, length, 2, rows).permute(0, 2, 3, 1) if layout == 'joined' else normal(batch, 2, rows, length)
        )

    return {
        'u': sequence(channels),
        'delta': 0.5 * sequence(channels).abs(),
        'A': -torch.rand(2, channels, states, generator=generator, dtype=torch.float64) * 2 - 0.1,
        'B': sequence(states),
        'C': sequence(states),
        'D': normal(2, channels) if skip else None,
        'z': sequence(channels)[:, 0] if gate else None,
        'delta_bias': 0.1 * normal(2, channels) if bias else None,
    }


def flipped_scans(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """The definition: the second direction on flipped copies."""
    halves = []
    for i in range(2):
        sequences = [x[:, i].flip(-1) if i else x[:, i] for x in (u, delta, B, C)]
        gate = None if z is None else (z.flip(-1) if i else z)
        weights = [None if x is None else x[i] for x in (D, delta_bias)]
        out = selective_scan(
            *sequences[:2], A[i], *sequences[2:], weights[0], gate, weights[1], delta_softplus, backend='reference'
        )
        halves.append(out.flip(-1) if i else out)
    return (halves[0] + halves[1]) / 2


CASES = {
    'plain': dict(gate=False, skip=False, bias=False),
    'everything': {},
    'one position': dict(length=1),
    'several chunks': dict(length=101, channels=19),
    'joined': dict(layout='joined', length=40),
    'length': dict(layout='length', length=33, channels=8),
    'no gate': dict(gate=False, length=35),
    'one state': dict(states=1, length=65),
}


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('backend', ALL)
def test_scan_equals_two_scans_with_flips(backend, case, dtype):
    inputs = convert(two_direction_inputs(**CASES[case]), dtype)
    found = run(bidirectional_scan, inputs, delta_softplus=True, backend=backend)
    expected = run(flipped_scans, convert(inputs, torch.float64), delta_softplus=True)
    # Sums of both directions and their gate are rounded to 16 bits on their way.
    assert_close(found, expected, TOLERANCE[dtype] * (1.5 if dtype.itemsize == 2 else 1))


@pytest.mark.parametrize('backend', FAST)
def test_mixed_types(backend):
    inputs = convert(two_direction_inputs(length=40), torch.float32)
    for name in ('u', 'B', 'z'):
        inputs[name] = inputs[name].detach().bfloat16().requires_grad_()
    found = run(bidirectional_scan, inputs, delta_softplus=True, backend=backend)
    expected = run(flipped_scans, convert(inputs, torch.float64), delta_softplus=True)
    assert found['output 0'].dtype == torch.bfloat16
    assert found['gradient of delta'].dtype == torch.float32
    assert_close(found, expected, 3e-2)


def flipped_convolutions(x, weight, bias=None, activation=None):
    """The definition: the second direction on a flipped copy."""
    biases = [None, None] if bias is None else bias
    forward = causal_conv1d(x, weight[0], biases[0], activation, backend='reference')
    reverse = causal_conv1d(x.flip(-1), weight[1], biases[1], activation, backend='reference').flip(-1)
    return torch.stack([forward, reverse], dim=1)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('with_bias', [True, False])
@pytest.mark.parametrize('length', [1, 3, 40, 77])
@pytest.mark.parametrize('backend', ALL)
def test_convolution_equals_two_with_flips(backend, length, with_bias, dtype):
    generator = torch.Generator().manual_seed(0)
    inputs = {
        'x': torch.randn(2, length, 11, generator=generator, dtype=torch.float64).transpose(1, 2),
        'weight': torch.randn(2, 11, 4, generator=generator, dtype=torch.float64),
        'bias': torch.randn(2, 11, generator=generator, dtype=torch.float64) if with_bias else None,
    }
    inputs = convert(inputs, dtype)
    found = run(bidirectional_conv1d, inputs, activation='silu', backend=backend)
    expected = run(flipped_convolutions, convert(inputs, torch.float64), activation='silu')
    assert_close(found, expected, TOLERANCE[dtype])


def test_each_direction_of_the_convolution_is_a_matrix():
    out = bidirectional_conv1d(torch.randn(2, 6, 8).transpose(1, 2), torch.randn(2, 8, 4))
    assert out.shape == (2, 2, 8, 6)
    assert out.permute(1, 0, 3, 2).is_contiguous()
    assert bidirectional_conv1d(torch.randn(2, 8, 6), torch.randn(2, 8, 4)).transpose(0, 1).is_contiguous()


@pytest.mark.parametrize('backend', FAST)
@pytest.mark.parametrize('layout', ['stacked', 'joined'])
def test_operators_pass_opcheck(layout, backend):
    inputs = convert(two_direction_inputs(channels=9, length=40, layout=layout), torch.float32)
    tensors = list(inputs.values())
    torch.library.opcheck(torch.ops.mmmap.bidirectional_scan.default, (*tensors, True, True, backend))
    plain = [x.detach() for x in tensors]
    out, states, y = torch.ops.mmmap.bidirectional_scan(*plain, True, True, backend)
    torch.library.opcheck(
        torch.ops.mmmap.bidirectional_scan_backward.default,
        (torch.ones_like(out), states, y, *plain, True, backend),
        test_utils=('test_schema', 'test_faketensor'),
    )
    x, weight, bias = (torch.randn(shape) for shape in ((2, 40, 6), (2, 6, 4), (2, 6)))
    x = x.transpose(1, 2) if layout == 'stacked' else x.view(2, 6, 40)
    for tensor in (x, weight, bias):
        tensor.requires_grad_()
    torch.library.opcheck(torch.ops.mmmap.bidirectional_conv1d.default, (x, weight, bias, True, backend))
    torch.library.opcheck(
        torch.ops.mmmap.bidirectional_conv1d_backward.default,
        (torch.ones(2, 2, 6, 40), x.detach(), weight.detach(), bias.detach(), True, backend),
        test_utils=('test_schema', 'test_faketensor'),
    )


@pytest.mark.parametrize('backend', FAST)
def test_flop_count_is_that_of_two(backend):
    inputs = convert(two_direction_inputs(channels=6, length=10), torch.float32)
    with FlopCounterMode(display=False) as counter:
        bidirectional_scan(**inputs, backend=backend).sum().backward()
        bidirectional_conv1d(inputs['z'], torch.randn(2, 6, 4, requires_grad=True), backend=backend).sum().backward()
    counts = counter.get_flop_counts()['Global']
    positions = 2 * 6 * 10
    assert counts[torch.ops.mmmap.bidirectional_scan] == positions * (2 * (7 * 4 + 1 + 2) + 2 + 5)
    assert counts[torch.ops.mmmap.bidirectional_scan_backward] == positions * (2 * (19 * 4 + 5 + 4) + 1 + 10)
    assert counts[torch.ops.mmmap.bidirectional_conv1d] == positions * 2 * 2 * 4
    assert counts[torch.ops.mmmap.bidirectional_conv1d_backward] == positions * (2 * 4 * 4 + 1)


@pytest.mark.parametrize('backend', FAST)
def test_second_derivative_is_refused(backend):
    inputs = convert(two_direction_inputs(), torch.float32)
    grad = torch.autograd.grad(bidirectional_scan(**inputs, backend=backend).sum(), inputs['u'], create_graph=True)[0]
    with pytest.raises(RuntimeError, match='bidirectional_scan_backward has no derivative'):
        grad.sum().backward()


@pytest.mark.skipif(shutil.which('c++') is None, reason='torch.compile needs a C++ compiler')
@pytest.mark.parametrize('backend', FAST)
def test_compiles_into_one_graph(backend):
    inputs = convert(two_direction_inputs(channels=8, length=40), torch.float32)
    weight = torch.randn(2, 8, 4, requires_grad=True)

    def function(inputs, weight):
        u = bidirectional_conv1d(inputs['z'] * 2, weight, activation='silu', backend=backend)
        return bidirectional_scan(**{**inputs, 'u': u}, delta_softplus=True, backend=backend).square().sum()

    results = []
    for candidate in (function, torch.compile(function, fullgraph=True)):
        loss = candidate(inputs, weight)
        wanted = [x for name, x in inputs.items() if name != 'u']
        results.append([loss, *torch.autograd.grad(loss, [weight, *wanted])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('u', lambda x: x[:, :1], 'u must be \\(batch, 2, channels, length\\)'),
        ('delta', lambda x: x[..., 1:], 'delta must be the shape of u'),
        ('A', lambda x: x[0], 'A must be \\(2, channels=5, states\\)'),
        ('B', lambda x: x[:, 0], 'B must be'),
        ('C', lambda x: x[:, :, 1:], 'C must be'),
        ('D', lambda x: x[0], 'D must be'),
        ('z', lambda x: x[:, None], 'z must be'),
        ('delta_bias', lambda x: x[:, 1:], 'delta_bias must be'),
        ('z', lambda x: x.long(), 'z must be float32'),
        ('B', lambda x: x.to('meta'), 'B is on meta, but u is on cpu'),
    ],
)
def test_scan_errors_name_the_argument(name, change, message):
    inputs = two_direction_inputs()
    inputs[name] = change(inputs[name])
    with pytest.raises((ValueError, TypeError), match=f'bidirectional_scan: {message}'):
        bidirectional_scan(**inputs)


def test_convolution_errors_name_the_argument():
    x, weight = torch.randn(2, 6, 8), torch.randn(2, 6, 4)
    with pytest.raises(ValueError, match='bidirectional_conv1d: weight must be'):
        bidirectional_conv1d(x, weight[0])
    with pytest.raises(ValueError, match='bidirectional_conv1d: bias must be'):
        bidirectional_conv1d(x, weight, torch.randn(6))
    with pytest.raises(ValueError, match="activation must be None or 'silu'"):
        bidirectional_conv1d(x, weight, activation='relu')
    with pytest.raises(ValueError, match='x must be'):
        bidirectional_conv1d(x[0], weight)


class Opaque(torch.autograd.Function):
    """The identity, with no gradient at all."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return None


@pytest.mark.parametrize('backend', FAST)
def test_no_gradient_from_behind(backend):
    inputs = convert(two_direction_inputs(), torch.float32)
    Opaque.apply(bidirectional_scan(**inputs, backend=backend)).sum().backward()
    assert all(x.grad is None for x in inputs.values())
    x = torch.randn(2, 6, 8, requires_grad=True)
    for convolution, weight in ((causal_conv1d, torch.randn(6, 4)), (bidirectional_conv1d, torch.randn(2, 6, 4))):
        weight.requires_grad_()
        Opaque.apply(convolution(x, weight, activation='silu', backend=backend)).sum().backward()
        assert not x.grad.any() and not weight.grad.any()


@pytest.mark.parametrize('backend', FAST)
def test_nothing_is_kept_without_gradients(backend):
    tensors = [x.float() for x in two_direction_inputs(length=100).values()]
    out, states, y = torch.ops.mmmap.bidirectional_scan(*tensors, True, False, backend)
    assert states.numel() == y.numel() == 0
    with pytest.raises(RuntimeError, match='bidirectional_scan_backward: the forward pass kept no states'):
        torch.ops.mmmap.bidirectional_scan_backward(torch.ones_like(out), states, y, *tensors, True, backend)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('backend', FAST)
def test_inputs_without_strides(backend, dtype):
    inputs = two_direction_inputs(length=40)
    for name, shape in {'u': (1, 2, 5, 1), 'A': (1, 5, 1), 'D': (1, 1), 'delta_bias': (2, 1), 'z': (2, 1, 1)}.items():
        x = inputs[name]
        inputs[name] = x[tuple(slice(0, n) for n in shape)].expand(x.shape)
    inputs = convert(inputs, dtype)
    found = run(bidirectional_scan, inputs, delta_softplus=True, backend=backend)
    expected = run(flipped_scans, convert(inputs, torch.float64), delta_softplus=True)
    assert_close(found, expected, TOLERANCE[dtype] * 2)


@pytest.mark.parametrize('backend', FAST)
def test_gate_is_silu(backend):
    inputs = two_direction_inputs()
    z = inputs.pop('z')
    with torch.no_grad():
        plain = bidirectional_scan(**inputs, backend=backend)
        torch.testing.assert_close(bidirectional_scan(**inputs, z=z, backend=backend), plain * F.silu(z))
