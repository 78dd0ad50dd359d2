import pytest
import torch
import torch.nn.functional as F
from scan_cases import TOLERANCE, assert_close, backend_params, convert, run

from mmmap.ops import causal_conv1d

FAST = backend_params('native', 'torch')


def conv_inputs(batch=2, channels=5, length=9, taps=4, bias=True, layout='channels_last'):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, length, channels, generator=generator, dtype=torch.float64).transpose(1, 2)
    return {
        'x': x if layout == 'channels_last' else x.contiguous(),
        'weight': torch.randn(channels, taps, generator=generator, dtype=torch.float64),
        'bias': torch.randn(channels, generator=generator, dtype=torch.float64) if bias else None,
    }


@pytest.mark.parametrize('reverse', [False, True])
def test_reference_is_the_formula(reverse):
    x, weight, bias = conv_inputs().values()
    out = causal_conv1d(x, weight, bias, reverse=reverse, backend='reference')
    length, taps = x.shape[2], weight.shape[1]
    for t in range(length):
        total = bias.expand(2, -1).clone()
        for k in range(taps):
            position = t + taps - 1 - k if reverse else t - taps + 1 + k
            if 0 <= position < length:
                total += weight[:, k] * x[:, :, position]
        torch.testing.assert_close(out[:, :, t], total)


@pytest.mark.parametrize('backend', FAST)
@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('activation', [None, 'silu'])
@pytest.mark.parametrize(
    'case',
    [
        {},
        dict(length=1),
        dict(length=2, channels=17),
        dict(length=32, channels=8),
        dict(length=70, channels=24),
        dict(taps=1, length=40),
        dict(taps=2, length=33),
        dict(taps=3, bias=False),
        dict(taps=7, length=65, channels=16),
        dict(taps=40, length=70),
        dict(taps=5, length=3, batch=1),
        dict(layout='length', length=45, channels=11),
    ],
    ids=str,
)
def test_outputs_and_gradients_in_float64(case, activation, reverse, backend):
    inputs = convert(conv_inputs(**case), torch.float64)
    options = dict(activation=activation, reverse=reverse)
    expected = run(causal_conv1d, inputs, backend='reference', **options)
    assert_close(run(causal_conv1d, inputs, backend=backend, **options), expected, TOLERANCE[torch.float64])


@pytest.mark.parametrize('backend', FAST)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('layout', ['channels_last', 'length'])
def test_short_types(layout, dtype, backend):
    inputs = convert(conv_inputs(channels=20, length=75, layout=layout), dtype)
    inputs['weight'] = inputs['weight'].detach().float().requires_grad_()  # as under autocast
    expected = run(causal_conv1d, convert(inputs, torch.float64), activation='silu', backend='reference')
    found = run(causal_conv1d, inputs, activation='silu', backend=backend)
    assert found['output 0'].dtype == dtype and found['gradient of weight'].dtype == torch.float32
    assert found['output 0'].stride() == found['gradient of x'].stride() == inputs['x'].stride()
    assert_close(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize('backend', FAST)
def test_reverse_is_the_mirror_image(backend):
    x, weight, bias = conv_inputs(length=50).values()
    out = causal_conv1d(x, weight, bias, 'silu', reverse=True, backend=backend)
    torch.testing.assert_close(out, causal_conv1d(x.flip(-1), weight, bias, 'silu', backend=backend).flip(-1))


@pytest.mark.parametrize('backend', FAST)
def test_equals_padded_convolution(backend):
    x, weight, bias = conv_inputs(length=50).values()
    expected = F.conv1d(x, weight[:, None], bias, padding=3, groups=5)[..., :50]
    torch.testing.assert_close(causal_conv1d(x, weight, bias, backend=backend), expected)


@pytest.mark.parametrize('backend', FAST)
def test_gradcheck(backend):
    inputs = convert(conv_inputs(channels=2, length=5, taps=3), torch.float64)

    def function(x, weight, bias):
        return causal_conv1d(x, weight, bias, 'silu', backend=backend)

    assert torch.autograd.gradcheck(function, list(inputs.values()), nondet_tol=0)


@pytest.mark.parametrize('backend', backend_params('native'))
def test_thread_counts_agree(backend):
    inputs = convert(conv_inputs(batch=3, channels=200, length=150), torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run(causal_conv1d, inputs, activation='silu', backend=backend))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert_close(result, results[0], 1e-5)


@pytest.mark.parametrize(
    ('message', 'change'),
    [
        ('x must be', dict(x=torch.zeros(2, 5))),
        ('weight must be', dict(weight=torch.zeros(4, 4))),
        ('bias must be', dict(bias=torch.zeros(4))),
        ('activation must be', dict(activation='relu')),
    ],
)
def test_wrong_arguments_are_named(message, change):
    inputs = {name: x.float() for name, x in conv_inputs().items()}
    with pytest.raises(ValueError, match=f'causal_conv1d: {message}'):
        causal_conv1d(**{**inputs, **change})
