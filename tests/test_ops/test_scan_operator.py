"""The operators as torch sees them: one node for autograd, compilers and counters."""

import shutil

import pytest
import torch
from scan_cases import backend_params, convert, scan_inputs
from torch.utils.flop_counter import FlopCounterMode

from mmmap.ops import causal_conv1d, selective_scan

FAST = backend_params('native', 'torch')


def four_dimensional(inputs):
    """The inputs as the operator takes them: positional, with groups."""
    return [x.unsqueeze(1) if name in 'BC' else x for name, x in inputs.items()]


@pytest.mark.parametrize('backend', FAST)
@pytest.mark.parametrize('layout', ['channels_last', 'length'])
def test_scan_passes_opcheck(layout, backend):
    inputs = convert(scan_inputs(channels=9, length=40, layout=layout), torch.float32)
    arguments = [None if x is None else x.detach().requires_grad_() for x in four_dimensional(inputs)]
    torch.library.opcheck(torch.ops.mmmap.selective_scan.default, (*arguments, True, False, True, backend))


@pytest.mark.parametrize('backend', FAST)
def test_scan_backward_passes_opcheck(backend):
    tensors = four_dimensional({name: x.float() for name, x in scan_inputs(channels=9, length=40).items()})
    out, last, saved = torch.ops.mmmap.selective_scan(*tensors, True, True, True, backend)
    torch.library.opcheck(
        torch.ops.mmmap.selective_scan_backward.default,
        (torch.ones_like(out), torch.ones_like(last), saved, *tensors, True, True, backend),
        test_utils=('test_schema', 'test_faketensor'),
    )


@pytest.mark.parametrize('backend', FAST)
def test_conv_passes_opcheck(backend):
    x, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((2, 6, 40), (6, 4), (6,)))
    torch.library.opcheck(torch.ops.mmmap.causal_conv1d.default, (x, weight, bias, True, False, backend))
    torch.library.opcheck(
        torch.ops.mmmap.causal_conv1d_backward.default,
        (torch.ones(2, 6, 40), x.detach(), weight.detach(), bias.detach(), True, True, backend),
        test_utils=('test_schema', 'test_faketensor'),
    )


@pytest.mark.parametrize('backend', FAST)
def test_flop_count(backend):
    inputs = convert(scan_inputs(batch=2, channels=6, length=10, states=4), torch.float32)
    weight = torch.randn(6, 4)
    with FlopCounterMode(display=False) as counter:
        selective_scan(**inputs, backend=backend).sum().backward()
        causal_conv1d(inputs['u'], weight, activation='silu', backend=backend)
    counts = counter.get_flop_counts()['Global']
    positions = 2 * 6 * 10
    assert counts[torch.ops.mmmap.selective_scan] == positions * (7 * 4 + 1 + 2 + 5)
    assert counts[torch.ops.mmmap.selective_scan_backward] == positions * (21 * 4 + 5 + 4 + 10)
    assert counts[torch.ops.mmmap.causal_conv1d] == positions * (2 * 4 + 4)


@pytest.mark.parametrize('backend', FAST)
def test_one_node_for_autograd(backend):
    inputs = convert(scan_inputs(), torch.float32)
    out = selective_scan(**inputs, delta_softplus=True, backend=backend)
    parents = {type(parent).__name__ for parent, _ in out.grad_fn.next_functions if parent is not None}
    assert parents <= {'AccumulateGrad', 'UnsqueezeBackward0'}


@pytest.mark.parametrize('backend', FAST)
def test_second_derivative_is_refused(backend):
    inputs = convert(scan_inputs(), torch.float32)
    out = selective_scan(**inputs, backend=backend)
    grad = torch.autograd.grad(out.sum(), inputs['u'], create_graph=True)[0]
    with pytest.raises(RuntimeError, match='selective_scan_backward has no derivative'):
        grad.sum().backward()


@pytest.mark.parametrize('backend', FAST)
def test_nothing_is_kept_without_gradients(backend):
    tensors = four_dimensional({name: x.float() for name, x in scan_inputs(length=100).items()})
    kept = [torch.ops.mmmap.selective_scan(*tensors, True, False, save, backend)[2].numel() for save in (False, True)]
    assert kept[0] == 0 < kept[1]
    out, _, saved = torch.ops.mmmap.selective_scan(*tensors, True, False, False, backend)
    with pytest.raises(RuntimeError, match='kept no states'):
        torch.ops.mmmap.selective_scan_backward(torch.ones_like(out), None, saved, *tensors, True, False, backend)


@pytest.mark.skipif(shutil.which('c++') is None, reason='torch.compile needs a C++ compiler')
@pytest.mark.parametrize('backend', FAST)
def test_compiles_into_one_graph(backend):
    inputs = convert(scan_inputs(channels=8, length=40), torch.float32)

    def function(inputs, weight):
        x = causal_conv1d(inputs['u'] * 2, weight, activation='silu', reverse=True, backend=backend)
        return selective_scan(**{**inputs, 'u': x}, delta_softplus=True, reverse=True, backend=backend).square().sum()

    weight = torch.randn(8, 4)
    results = []
    for candidate in (function, torch.compile(function, fullgraph=True)):
        loss = candidate(inputs, weight)
        results.append([loss, *torch.autograd.grad(loss, list(inputs.values()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
