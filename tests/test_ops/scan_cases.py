"""Inputs and comparisons shared by the operator tests."""

import pytest
import torch

from mmmap.ops import available_backends

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def backend_params(*names):
    """The backends as test parameters, each skipped with its reason where it is not available."""
    reasons = available_backends()
    return [
        pytest.param(name, marks=pytest.mark.skipif(reasons[name] is not None, reason=str(reasons[name])))
        for name in names
    ]


def scan_inputs(
    batch=2,
    channels=5,
    length=7,
    states=4,
    groups=None,
    gate=True,
    skip=True,
    bias=True,
    layout='channels_last',
    seed=0,
):
    """Arguments of selective_scan in float64, by name; B and C have a group dimension if ``groups`` is given."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def sequence(*shape):
        if layout == 'channels_last':
            return normal(*shape[:-2], shape[-1], shape[-2]).transpose(-1, -2)
        return normal(*shape)

    weights = (batch, states, length) if groups is None else (batch, groups, states, length)
    inputs = {
        'u': sequence(batch, channels, length),
        'delta': 0.5 * sequence(batch, channels, length).abs(),  # positive: the states decay
        'A': -torch.rand(channels, states, generator=generator, dtype=torch.float64) * 2 - 0.1,
        'B': sequence(*weights),
        'C': sequence(*weights),
        'D': normal(channels) if skip else None,
        'z': sequence(batch, channels, length) if gate else None,
        'delta_bias': 0.1 * normal(channels) if bias else None,
    }
    return inputs


def convert(inputs, dtype):
    """The inputs in another type, strides kept, ready for gradients."""
    return {name: None if x is None else x.detach().to(dtype).requires_grad_() for name, x in inputs.items()}


def run(function, inputs, seed=1, **options):
    """Outputs and gradients (of a fixed random weighting of the outputs), by name."""
    result = function(**inputs, **options)
    outputs = result if isinstance(result, tuple) else (result,)
    generator = torch.Generator().manual_seed(seed)
    weightings = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in outputs]
    wanted = {name: x for name, x in inputs.items() if x is not None and x.requires_grad}
    grads = torch.autograd.grad(outputs, list(wanted.values()), weightings)
    found = {f'output {i}': out.detach() for i, out in enumerate(outputs)}
    found.update({f'gradient of {name}': grad for name, grad in zip(wanted, grads, strict=True)})
    return found


def assert_close(found, expected, tolerance):
    """Compare by max|a - b| / max|b|, tensor by tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.double().abs().max().clamp_min(1e-30)
        error = ((found[name].double() - value.double()).abs().max() / scale).item()
        assert error <= tolerance, f'{name}: relative error {error:.2e} > {tolerance:.0e}'
