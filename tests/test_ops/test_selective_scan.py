import copy

import pytest
import torch
from scan_cases import TOLERANCE, assert_close, backend_params, convert, run, scan_inputs

from mmmap.ops import selective_scan

FAST = backend_params('native', 'torch')

CASES = {
    'plain': {},
    'length 1': dict(length=1),
    'length 2': dict(length=2),
    'length 3': dict(length=3, channels=1),
    'one chunk': dict(length=32, channels=8),
    'one chunk and a step': dict(length=33, channels=9),
    'several chunks': dict(length=101, channels=24, states=16),
    'states 1': dict(states=1, channels=17, length=40),
    'states 16': dict(states=16, channels=7),
    'states 17': dict(states=17, channels=16, length=35),
    'no gate, skip, bias': dict(gate=False, skip=False, bias=False, length=37, channels=12),
    'no gate': dict(gate=False, length=37, channels=12),
    'one group': dict(groups=1),
    'groups': dict(groups=3, channels=15, length=38, states=5),
    'groups, each a full block': dict(groups=2, channels=32, length=34),
    'length innermost': dict(layout='length', length=45, channels=11),
    'one batch element': dict(batch=1, channels=40, length=50),
    'odd batch': dict(batch=3, channels=33, length=41),
}


def expected_of(inputs, **options):
    return run(selective_scan, inputs, backend='reference', return_last_state=True, **options)


@pytest.mark.parametrize('backend', FAST)
@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('softplus', [False, True])
@pytest.mark.parametrize('case', CASES)
def test_outputs_and_gradients_in_float64(case, softplus, reverse, backend):
    inputs = convert(scan_inputs(**CASES[case]), torch.float64)
    options = dict(delta_softplus=softplus, reverse=reverse)
    expected = expected_of(inputs, **options)
    found = run(selective_scan, inputs, backend=backend, return_last_state=True, **options)
    assert_close(found, expected, TOLERANCE[torch.float64])


@pytest.mark.parametrize('backend', FAST)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('case', ['plain', 'several chunks', 'groups', 'length innermost', 'states 17'])
def test_outputs_and_gradients_in_short_types(case, dtype, backend):
    inputs = convert(scan_inputs(**CASES[case]), dtype)
    expected = expected_of(convert(inputs, torch.float64), delta_softplus=True)
    found = run(selective_scan, inputs, backend=backend, return_last_state=True, delta_softplus=True)
    assert found['output 0'].dtype == dtype and found['output 1'].dtype == torch.float32
    assert all(grad.dtype == dtype for name, grad in found.items() if name.startswith('gradient'))
    assert_close(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize('backend', FAST)
def test_mixed_types_are_computed_in_float32(backend):
    inputs = convert(scan_inputs(channels=20, length=70), torch.float32)
    for name in ('u', 'B', 'z'):
        inputs[name] = inputs[name].detach().bfloat16().requires_grad_()
    expected = expected_of(convert(inputs, torch.float64), delta_softplus=True)
    found = run(selective_scan, inputs, backend=backend, return_last_state=True, delta_softplus=True)
    for name, x in inputs.items():
        assert found[f'gradient of {name}'].dtype == x.dtype
    # Inputs in float32 are rounded nowhere: their gradients differ by what rounding the output's weighting does.
    assert_close(found, expected, TOLERANCE[torch.bfloat16])
    exact = {name: expected[name] for name in ('output 1',)}
    assert_close({name: found[name] for name in exact}, exact, TOLERANCE[torch.float32])


@pytest.mark.parametrize('backend', FAST)
def test_under_autocast(backend):
    inputs = convert(scan_inputs(channels=12, length=40), torch.float32)
    inputs['u'] = inputs['u'].detach().bfloat16().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        out = selective_scan(**inputs, delta_softplus=True, backend=backend)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert inputs['delta'].grad.dtype == torch.float32


STRIDES = {
    'every second position': lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
    'every second channel': lambda x: torch.stack([x, x], -2).flatten(-3, -2)[..., ::2, :],
    'part of a wider projection': lambda x: (
        torch.cat([x, x], -2).transpose(-1, -2).contiguous().transpose(-1, -2)[..., : x.shape[-2], :]
    ),
    'batch last': lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    'flipped batch': lambda x: x.flip(0).contiguous().flip(0),
}


@pytest.mark.parametrize('backend', FAST)
@pytest.mark.parametrize('strides', STRIDES)
def test_any_strides(strides, backend):
    inputs = scan_inputs(batch=3, channels=10, length=36, layout='length')
    for name in ('u', 'delta', 'z', 'B', 'C'):
        strided = STRIDES[strides](inputs[name])
        assert torch.equal(strided, inputs[name])
        inputs[name] = strided
    inputs = {name: x.requires_grad_() for name, x in inputs.items()}
    assert_close(run(selective_scan, inputs, backend=backend), run(selective_scan, inputs, backend='reference'), 1e-12)


@pytest.mark.parametrize('backend', FAST)
def test_expanded_inputs_and_gradients(backend):
    inputs = scan_inputs(batch=3, channels=9, length=35, gate=False)
    inputs['B'] = inputs['B'][:1].expand(3, -1, -1)
    inputs['delta'] = inputs['delta'][:, :1].expand(-1, 9, -1)
    inputs = {name: None if x is None else x.requires_grad_() for name, x in inputs.items()}
    # A sum hands back an expanded gradient with strides of zero.
    found, expected = (
        torch.autograd.grad(selective_scan(**inputs, backend=name).sum(), [inputs['u'], inputs['B'], inputs['delta']])
        for name in (backend, 'reference')
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('backend', [*FAST, 'reference'])
def test_reverse_is_flip_scan_flip(backend):
    inputs = convert(scan_inputs(length=70, channels=9), torch.float64)
    flipped = {name: x.flip(-1) if name in ('u', 'delta', 'B', 'C', 'z') else x for name, x in inputs.items()}
    out, last = selective_scan(**inputs, reverse=True, return_last_state=True, backend=backend)
    mirrored, mirrored_last = selective_scan(**flipped, return_last_state=True, backend=backend)
    torch.testing.assert_close(out, mirrored.flip(-1))
    torch.testing.assert_close(last, mirrored_last)


@pytest.mark.parametrize('backend', FAST)
@pytest.mark.parametrize('layout', ['channels_last', 'length'])
def test_results_keep_the_layout_of_their_inputs(layout, backend):
    inputs = convert(scan_inputs(channels=16, length=40, layout=layout), torch.float32)
    found = run(selective_scan, inputs, backend=backend)
    assert found['output 0'].stride() == inputs['u'].stride()
    for name in ('u', 'delta', 'z', 'B', 'C'):
        assert found[f'gradient of {name}'].stride() == inputs[name].stride(), name


@pytest.mark.parametrize('backend', FAST)
@pytest.mark.parametrize('reverse', [False, True])
def test_gradcheck(reverse, backend):
    inputs = convert(scan_inputs(channels=3, length=5, states=2), torch.float64)
    names = list(inputs)

    def function(*values):
        named = dict(zip(names, values, strict=True))
        return selective_scan(**named, delta_softplus=True, return_last_state=True, reverse=reverse, backend=backend)

    assert torch.autograd.gradcheck(function, list(inputs.values()), nondet_tol=0)


@pytest.mark.parametrize('backend', FAST)
def test_gradient_through_the_last_state_alone(backend):
    inputs = convert(scan_inputs(length=40), torch.float64)
    for name in (backend, 'reference'):
        _, last = selective_scan(**inputs, return_last_state=True, backend=name)
        grads = torch.autograd.grad(last.square().sum(), [inputs['u'], inputs['A'], inputs['delta']])
        if name == backend:
            found = grads
    for a, b in zip(found, grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('backend', FAST)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_softplus_over_its_range(dtype, backend):
    # One state that forgets at once, so that each output shows its own step size, from 1e-13 to beyond the threshold.
    delta = torch.linspace(-30, 40, 1401, dtype=torch.float64).view(1, 1, -1)
    inputs = {'u': torch.ones_like(delta), 'delta': delta, 'A': torch.full((1, 1), -1e20, dtype=torch.float64)}
    inputs.update(B=torch.ones_like(delta), C=torch.ones_like(delta))
    results = {}
    for name, kind in ((backend, dtype), ('reference', torch.float64)):
        named = convert(convert(inputs, dtype), kind)
        out = selective_scan(**named, delta_softplus=True, backend=name)
        results[name] = [out.detach(), *torch.autograd.grad(out.sum(), [named['delta'], named['u']])]
    for a, b in zip(results[backend], results['reference'], strict=True):
        rtol = 5e-6 if dtype == torch.float32 else 1e-13
        torch.testing.assert_close(a.double(), b, rtol=rtol, atol=0)


@pytest.mark.parametrize('backend', FAST)
def test_extreme_steps_neither_overflow_nor_make_nan(backend):
    inputs = scan_inputs(length=64, channels=8)
    inputs['delta'] = inputs['delta'] * 0 + 1e4
    out, last = selective_scan(**convert(inputs, torch.float32), return_last_state=True, backend=backend)
    expected, expected_last = selective_scan(**inputs, return_last_state=True, backend='reference')
    assert_close({'out': out.detach(), 'last': last.detach()}, {'out': expected, 'last': expected_last}, 1e-5)


@pytest.mark.parametrize('backend', FAST)
def test_not_a_number_stays_visible(backend):
    inputs = convert(scan_inputs(length=40, channels=9), torch.float32)
    for name in ('u', 'delta', 'A', 'B', 'C', 'D', 'z', 'delta_bias'):
        broken = {key: x.detach().clone() for key, x in inputs.items()}
        broken[name][(0,) * broken[name].dim()] = float('nan')
        out = selective_scan(**broken, delta_softplus=True, backend=backend)
        reference = selective_scan(**broken, delta_softplus=True, backend='reference')
        assert torch.equal(out.isnan(), reference.isnan()), name


@pytest.mark.parametrize('backend', backend_params('native'))
@pytest.mark.parametrize('batch', [1, 3])
def test_thread_counts_agree(batch, backend):
    inputs = convert(scan_inputs(batch=batch, channels=100, length=130, states=16), torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run(selective_scan, inputs, backend=backend, return_last_state=True))
            again = run(selective_scan, inputs, backend=backend, return_last_state=True)
            assert all(torch.equal(again[name], x) for name, x in results[-1].items())
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert_close(result, results[0], 1e-5)


def test_a_graph_may_be_walked_twice_and_inputs_are_not_touched():
    inputs = convert(scan_inputs(length=40), torch.float64)
    before = copy.deepcopy({name: x.detach() for name, x in inputs.items()})
    out = selective_scan(**inputs)
    first = torch.autograd.grad(out.sum(), inputs['u'], retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(out.sum(), inputs['u'])[0])
    assert all(torch.equal(x, before[name]) for name, x in inputs.items())


WRONG = {
    'u must be': dict(u=torch.zeros(2, 5)),
    'delta must be': dict(delta=torch.zeros(2, 5, 6)),
    'A must be': dict(A=torch.zeros(4, 4)),
    'B must be': dict(B=torch.zeros(2, 3, 7)),
    'C must be': dict(C=torch.zeros(2, 1, 4, 7)),
    'D must be': dict(D=torch.zeros(1)),
    'z must be': dict(z=torch.zeros(2, 5, 1)),
    'delta_bias must be': dict(delta_bias=torch.zeros(5, 1)),
    'B has 2 groups': dict(B=torch.zeros(2, 2, 4, 7), C=torch.zeros(2, 2, 4, 7)),
    'D is on meta': dict(D=torch.zeros(5, device='meta')),
}


@pytest.mark.parametrize('message', WRONG)
def test_wrong_shapes_are_named(message):
    inputs = {name: x.float() for name, x in scan_inputs().items()}
    with pytest.raises(ValueError, match=f'selective_scan: {message}') as caught:
        selective_scan(**{**inputs, **WRONG[message]})
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'value'), [('A', torch.zeros(5, 4, dtype=torch.complex64)), ('u', None), ('B', torch.zeros(2, 4, 7).int())]
)
def test_wrong_types_are_named(name, value):
    inputs = {key: x.float() for key, x in scan_inputs().items()}
    with pytest.raises(TypeError, match=f'selective_scan: {name} must be'):
        selective_scan(**{**inputs, name: value})


def test_misspelt_argument_is_an_error():
    with pytest.raises(TypeError, match='delta_softmax'):
        selective_scan(**scan_inputs(), delta_softmax=True)
