"""The triton kernels against the float64 reference: on a GPU if there is one, else in triton's interpreter.

The interpreter is chosen when triton is imported, for the whole process. So that no other test meets it, this module
runs itself once more in a process of its own.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scan_cases import assert_close, scan_inputs

from mmmap.ops.backends import triton as triton_backend
from mmmap.ops.backends import triton_tuning
from mmmap.ops.backends.base import BidirectionalInputs, ScanInputs
from mmmap.ops.backends.reference import causal_conv1d_reference, selective_scan_reference
from mmmap.ops.backends.triton import TritonBackend
from mmmap.ops.backends.triton_tuning import Block, Tuning

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cuda' if torch.cuda.is_available() and not INTERPRETED else 'cpu'
HERE = INTERPRETED or DEVICE == 'cuda'
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}

needs_triton = pytest.mark.skipif(importlib.util.find_spec('triton') is None, reason='triton is not installed')
kernels = pytest.mark.skipif(not HERE, reason='run by test_in_the_interpreter')
BACKEND = TritonBackend()


@needs_triton
@pytest.mark.skipif(HERE, reason='the tests run in this process')
def test_in_the_interpreter():
    import triton

    # That of 3.9 refuses masks that the compiler takes.
    if not triton.__version__.startswith(('3.6.', '3.7.')):
        pytest.skip(f'the kernels are known to run in the interpreters of triton 3.6 and 3.7, not {triton.__version__}')
    command = [
        sys.executable,
        '-m',
        'pytest',
        '-p',
        'no:cacheprovider',
        '-W',
        'ignore',
        '-k',
        'not (interpreter or listing or reasons or number or old or broken or compiled)',
        __file__,
    ]
    result = subprocess.run(command, env={**os.environ, 'TRITON_INTERPRET': '1'}, capture_output=True, text=True)
    assert result.returncode == 0, f'{result.stdout[-6000:]}\n{result.stderr[-2000:]}'
    assert 'skipped' not in result.stdout


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """New memory holds NaN, so that what a kernel leaves out, or reads too early, shows."""
    empty_like, new_empty = torch.empty_like, torch.Tensor.new_empty
    monkeypatch.setattr(torch, 'empty_like', lambda *args, **kwargs: empty_like(*args, **kwargs).fill_(float('nan')))
    monkeypatch.setattr(
        torch.Tensor, 'new_empty', lambda *args, **kwargs: new_empty(*args, **kwargs).fill_(float('nan'))
    )


def tune(monkeypatch, chunk=4, block=8, segments=1):
    """Small blocks, so that few channels and steps fill several."""
    blocks = dict(forward=Block(block), backward=Block(block), conv=Block(8), conv_backward=Block(8))
    tuning = Tuning(chunk, **blocks, conv_steps=4, conv_backward_steps=4, segments=segments)
    monkeypatch.setattr(triton_tuning, '_TABLE', ((float('inf'), tuning),))


def strided(x, layout):
    """The values of ``x`` with other strides."""
    if layout == 'channels_last':
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == 'sliced':
        wide = x.new_full((*x.shape[:-2], 2 * x.shape[-2], x.shape[-1] + 3), float('nan'))
        wide[..., ::2, 1:-2] = x
        return wide[..., ::2, 1:-2]
    return x.contiguous()


def scan_case(
    dtype=torch.float32, weights=None, layout='channels_last', softplus=True, reverse=False, groups=1, **sizes
):
    """Inputs of one scan: sequences in ``dtype``, the rest in ``weights`` (default: float32, or float64)."""
    inputs = scan_inputs(groups=groups, layout='length', **{**dict(batch=1, channels=5, length=6, states=2), **sizes})
    weights = weights or (torch.float64 if dtype == torch.float64 else torch.float32)
    if softplus:
        inputs['delta'] = inputs['delta'] * 6 - 3
    for name, x in inputs.items():
        if x is not None:
            x = x.to(DEVICE, dtype if x.dim() > 2 else weights)
            inputs[name] = strided(x, layout) if x.dim() > 2 else x
    return ScanInputs(**inputs, delta_softplus=softplus, reverse=reverse)


def leaves(inputs):
    return [None if x is None else x.detach().double().requires_grad_() for x in inputs[:8]]


def names(grads, inputs):
    """Gradients by name; each has the type and strides that ``torch.empty_like`` gives."""
    assert [g is None for g in grads] == [x is None for x in inputs[:8]]
    found = {}
    for name, grad, x in zip(type(inputs)._fields[:8], grads, inputs[:8], strict=True):
        if x is not None:
            assert (grad.dtype, grad.shape, grad.stride()) == (x.dtype, x.shape, torch.empty_like(x).stride()), name
            found[f'gradient of {name}'] = grad
    return found


def check_scan(inputs, with_last=True):
    u, B = inputs.u, inputs.B
    out, last, saved = BACKEND.scan_forward(inputs, True)
    assert saved.shape == BACKEND.saved_shape(u, B)
    assert out.dtype == u.dtype and out.stride() == torch.empty_like(u).stride()
    dout, dlast = torch.randn_like(out), torch.randn_like(last) if with_last else None
    grads = BACKEND.scan_backward(dout, dlast, saved, inputs)

    wanted = leaves(inputs)
    outputs = selective_scan_reference(*wanted, inputs.delta_softplus, inputs.reverse)
    weightings = [dout.double(), dlast.double() if with_last else torch.zeros_like(outputs[1])]
    real = [x for x in wanted if x is not None]
    exact = iter(torch.autograd.grad(outputs, real, weightings))
    expected = {
        f'gradient of {name}': next(exact) for name, x in zip(inputs._fields[:8], wanted, strict=True) if x is not None
    }
    found = names(grads, inputs)
    short = TOLERANCE[u.dtype]
    for key in found:
        tolerance = max(short, TOLERANCE[found[key].dtype])
        assert_close({key: found[key]}, {key: expected[key]}, tolerance)
    assert_close({'out': out, 'last': last}, {'out': outputs[0].detach(), 'last': outputs[1].detach()}, short)


@kernels
@pytest.mark.parametrize(
    'case',
    [
        dict(batch=2, length=9, states=3),
        dict(length=9, reverse=True, layout='length', channels=9),
        dict(length=1),
        dict(length=2, reverse=True, with_last=False),
        dict(length=3, layout='length', skip=False),
        dict(length=4, layout='sliced', reverse=True, bias=False),
        dict(length=5, layout='sliced', gate=False),
        dict(layout='length', reverse=True, gate=False, bias=False),
        dict(softplus=False, gate=False, skip=False, bias=False),
        dict(softplus=False, reverse=True, with_last=False),
        dict(batch=2, groups=2, channels=6, length=5),
        dict(groups=2, channels=20, length=3, reverse=True),
        dict(states=1),
        dict(states=5, channels=1),
        dict(states=16, length=3),
    ],
    ids=str,
)
def test_scan(case, monkeypatch):
    tune(monkeypatch)
    case = dict(case)
    with_last = case.pop('with_last', True)
    check_scan(scan_case(**case), with_last)


@kernels
def test_nothing_is_kept_unasked(monkeypatch):
    tune(monkeypatch)
    inputs = scan_case()
    out, last, _ = BACKEND.scan_forward(inputs, True)
    again = BACKEND.scan_forward(inputs, False)
    assert again[2].numel() == 0 and torch.equal(again[0], out) and torch.equal(again[1], last)
    inputs = bidirectional_case()
    out, _, _ = BACKEND.bidirectional_forward(inputs, True)
    again, *kept = BACKEND.bidirectional_forward(inputs, False)
    assert torch.equal(again, out) and [x.numel() for x in kept] == [0, 0]


@kernels
@pytest.mark.parametrize(('segments', 'with_last', 'reverse'), [(2, True, False), (3, True, True), (3, False, False)])
def test_segments(segments, with_last, reverse, monkeypatch):
    tune(monkeypatch, chunk=2, segments=segments)
    inputs = scan_case(length=5 + segments, reverse=reverse)
    check_scan(inputs, with_last)


@kernels
@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_types(dtype, monkeypatch):
    tune(monkeypatch, segments=2)
    check_scan(scan_case(dtype))


@kernels
def test_mixed_types(monkeypatch):
    tune(monkeypatch)
    inputs = scan_case(torch.bfloat16, weights=torch.bfloat16)
    inputs = inputs._replace(delta=inputs.delta.float(), B=inputs.B.half(), D=inputs.D.double())
    check_scan(inputs)


@kernels
@pytest.mark.parametrize(('chunk', 'block'), [(2, 64), (8, 32), (4, 4)])
def test_blocks(chunk, block, monkeypatch):
    tune(monkeypatch, chunk, block)
    check_scan(scan_case(channels=37 if block > 4 else 6, length=9))


@kernels
def test_the_table():
    check_scan(scan_case(channels=33, length=18, states=1))


@kernels
def test_extreme_steps(monkeypatch):
    """Large, tiny and negative raw step sizes: nothing overflows, and small ones keep their digits."""
    tune(monkeypatch)
    inputs = scan_case(gate=False, bias=False)
    raw = torch.linspace(-14, 45, inputs.delta.numel(), device=DEVICE).view_as(inputs.delta)
    check_scan(inputs._replace(delta=raw))
    small = scan_case(length=3, skip=False, bias=False)
    small = small._replace(delta=torch.full_like(small.delta, -11.0))
    check_scan(small)


def bidirectional_case(dtype=torch.float32, stacked=True, channels=5, **options):
    """Both directions: stacked as the convolution gives them, or side by side as one projection gives them."""
    halves = [scan_case(dtype, channels=channels, seed=i, **options) for i in range(2)]
    joined = {}
    for name in ScanInputs._fields[:8]:
        pair = [getattr(x, name) for x in halves]
        if name == 'z' or pair[0] is None:
            joined[name] = pair[0]
        elif name in 'BC':
            joined[name] = torch.cat(pair, 1) + torch.tensor([0, 0.5], device=DEVICE).to(dtype)[:, None, None]
        elif pair[0].dim() == 3:
            both = torch.stack(pair, 0 if stacked else 1)
            joined[name] = both.transpose(0, 1) if stacked else both
            joined[name][:, 1] *= 0.5
        else:
            joined[name] = torch.stack([pair[0], 1.5 * pair[1]])
    return BidirectionalInputs(**joined, delta_softplus=halves[0].delta_softplus)


def bidirectional_reference(u, delta, A, B, C, D, z, bias, softplus):
    y = 0
    for i in range(2):
        skip, shift = (None if x is None else x[i] for x in (D, bias))
        inputs = (u[:, i], delta[:, i], A[i], B[:, i, None], C[:, i, None], skip, None, shift)
        y = y + selective_scan_reference(*inputs, softplus, i == 1)[0]
    return y, 0.5 * y if z is None else 0.5 * y * torch.nn.functional.silu(z)


@kernels
@pytest.mark.parametrize(
    ('case', 'segments'),
    [
        (dict(batch=2, states=3), 1),
        (dict(length=1, layout='length'), 1),
        (dict(gate=False, skip=False, stacked=False, layout='length'), 1),
        (dict(bias=False, softplus=False, stacked=False), 1),
        (dict(layout='sliced'), 2),
        (dict(dtype=torch.bfloat16), 1),
        (dict(dtype=torch.float64), 2),
    ],
    ids=str,
)
def test_both_directions(case, segments, monkeypatch):
    tune(monkeypatch, segments=segments)
    inputs = bidirectional_case(**case)
    u, z = inputs.u, inputs.z
    out, states, y = BACKEND.bidirectional_forward(inputs, True)
    assert states.shape == BACKEND.bidirectional_saved_shape(u, inputs.B)
    assert out.dtype == u.dtype and out.stride() == torch.empty_like(u[:, 0]).stride()
    assert y.numel() == (0 if z is None else out.numel())
    dout = torch.randn_like(out)
    found = names(BACKEND.bidirectional_backward(dout, states, y, inputs), inputs)

    wanted = leaves(inputs)
    exact_y, exact = bidirectional_reference(*wanted, inputs.delta_softplus)
    real = [x for x in wanted if x is not None]
    grads = iter(torch.autograd.grad(exact, real, dout.double()))
    expected = {
        f'gradient of {name}': next(grads) for name, x in zip(inputs._fields[:8], wanted, strict=True) if x is not None
    }
    if z is not None:
        found['y'], expected['y'] = y, exact_y.detach()
    assert_close(found | {'out': out}, expected | {'out': exact.detach()}, TOLERANCE[u.dtype])


def conv_case(dtype=torch.float32, batch=1, channels=5, length=9, taps=4, bias=True, layout='channels_last'):
    x = strided(torch.randn(batch, channels, length), layout).to(DEVICE, dtype)
    weights = torch.float64 if dtype == torch.float64 else torch.float32
    weight, shift = torch.randn(2, channels, taps), torch.randn(2, channels) if bias else None
    return x, weight.to(DEVICE, weights), None if shift is None else shift.to(DEVICE, weights)


@kernels
@pytest.mark.parametrize('silu', [False, True])
@pytest.mark.parametrize(
    'case',
    [
        dict(batch=2, length=6, channels=9),
        dict(length=1, taps=3),
        dict(length=2, layout='length'),
        dict(length=5, layout='sliced', bias=False),
        dict(taps=1, channels=3),
        dict(taps=8, length=6, channels=2),
        dict(taps=9),
        dict(dtype=torch.float64, length=4),
        dict(dtype=torch.bfloat16, length=4),
        dict(dtype=torch.float16, length=4),
    ],
    ids=str,
)
def test_convolution(case, silu, monkeypatch):
    tune(monkeypatch)
    x, weight, bias = conv_case(**case)
    tolerance = TOLERANCE[x.dtype]
    wanted = [None if v is None else v.double().requires_grad_() for v in (x, weight, bias)]
    exact = [
        causal_conv1d_reference(wanted[0], wanted[1][i], None if bias is None else wanted[2][i], silu, i == 1)
        for i in range(2)
    ]

    both = BACKEND.bidirectional_conv_forward(x, weight, bias, silu)
    dout = torch.randn_like(both)
    dx, dweight, dbias = BACKEND.bidirectional_conv_backward(dout, x, weight, bias, silu)
    real = [v for v in wanted if v is not None]
    expected = torch.autograd.grad(exact, real, [dout[:, 0].double(), dout[:, 1].double()], retain_graph=True)
    assert (dbias is None) == (bias is None)
    found = [v for v in (dx, dweight, dbias) if v is not None]
    for grad, like in zip(found, (x, weight, bias), strict=False):
        assert grad.dtype == like.dtype and grad.stride() == torch.empty_like(like).stride()
    assert_close(
        dict(enumerate([both, *found])), dict(enumerate([torch.stack(exact, 1).detach(), *expected])), tolerance
    )

    i = int(silu)  # One direction by itself: the reverse one with SiLU, the forward one without.
    shift = None if bias is None else bias[i]
    out = BACKEND.conv_forward(x, weight[i], shift, silu, i == 1)
    found = BACKEND.conv_backward(dout[:, i], x, weight[i], shift, silu, i == 1)
    grads = torch.autograd.grad(exact[i], real, dout[:, i].double(), retain_graph=True)
    expected = [grads[0], *(grad[i] for grad in grads[1:])]
    found = [out, *(v for v in found if v is not None)]
    assert found[0].stride() == found[1].stride() == torch.empty_like(x).stride()
    assert_close(dict(enumerate(found)), dict(enumerate([exact[i].detach(), *expected])), tolerance)


@pytest.mark.parametrize(
    ('programs', 'chunks', 'processors', 'expected'),
    [(6144, 7, 132, (1, 7)), (96, 256, 132, (43, 6)), (96, 9, 132, (2, 5)), (1, 3, 132, (1, 3)), (8, 64, 1, (4, 16))],
)
def test_number_of_segments(programs, chunks, processors, expected, monkeypatch):
    monkeypatch.setattr(triton_tuning, '_processors', lambda device: processors)
    segments, size = triton_tuning.segments_for(triton_tuning.tuning_for(chunks * 16), programs, chunks, None)
    assert (segments, size) == expected
    assert (segments - 1) * size < chunks <= segments * size


@pytest.fixture
def looks_again():
    """The package is looked at anew, in the test and after it."""
    triton_backend._package_problem.cache_clear()
    yield
    triton_backend._package_problem.cache_clear()


@needs_triton
def test_an_old_triton_is_named(looks_again, monkeypatch):
    monkeypatch.setattr('triton.__version__', '3.2.0')
    assert 'triton 3.2.0 is too old' in BACKEND.unavailable()


def test_a_broken_triton_is_a_reason(tmp_path):
    (tmp_path / 'triton').mkdir()
    (tmp_path / 'triton' / '__init__.py').write_text('raise RuntimeError("no driver")')
    code = (
        'import sys, types; m = types.ModuleType("mmmap"); m.__path__ = [sys.argv[1]]; sys.modules["mmmap"] = m\n'
        'from mmmap.ops.backends.triton import TritonBackend\n'
        'sys.path.insert(0, sys.argv[2])\n'
        'for name in [x for x in sys.modules if x.split(".")[0] == "triton"]: del sys.modules[name]\n'
        'print(TritonBackend().unavailable())\n'
    )
    package = Path(triton_tuning.__file__).parents[2]
    command = [sys.executable, '-c', code, str(package), str(tmp_path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed == 'triton cannot be imported (no driver)\n'


def test_reasons(looks_again, monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    if importlib.util.find_spec('triton') is not None:
        assert 'no CUDA device' in BACKEND.unavailable()
    assert BACKEND.unsupported('cuda', torch.float64) is None
    assert 'cpu' in BACKEND.unsupported('cpu', torch.float32)
    triton_backend._package_problem.cache_clear()
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert 'not installed' in BACKEND.unavailable()


def test_listing_the_backend_does_not_import_the_kernels():
    code = (
        'import sys, types; m = types.ModuleType("mmmap"); m.__path__ = [sys.argv[1]]; sys.modules["mmmap"] = m\n'
        'from mmmap.ops.backends.triton import TritonBackend\n'
        'TritonBackend().unavailable()\n'
        'assert not [x for x in sys.modules if x.startswith("mmmap.ops.backends.triton_") and "tuning" not in x]\n'
    )
    package = Path(triton_tuning.__file__).parents[2]
    subprocess.run([sys.executable, '-c', code, str(package)], check=True)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason='the interpreter compiles nothing')
def test_compiled_forward_pass_needs_no_exchange_between_threads():
    """A thread holds all states of its channels, whatever the compiler's version prefers; else all takes far longer."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from mmmap.ops.backends.triton_scan import forward_kernel

    if not triton.__version__.startswith(('3.6.', '3.7.')):
        pytest.skip(f'how to compile without a GPU is known of triton 3.6 and 3.7, not {triton.__version__}')
    options = dict(DIRECTIONS=2, N=16, NP=16, T=16, BD=32, HAS_D=True, HAS_Z=False, HAS_BIAS=True, SOFTPLUS=True)
    options |= dict(SAVE=True, LAST=False, SEGMENTED=False, CT=tl.float32, z=None, last=None, start=None)
    options |= dict(u_d=1, delta_d=1, out_d=1)
    sequences, weights = ('u', 'delta', 'out', 'saved'), ('A', 'B', 'C', 'D', 'bias')
    names = forward_kernel.arg_names
    types = {name: 'constexpr' if name in options else 'i32' for name in names}
    types |= dict.fromkeys(sequences, '*bf16') | dict.fromkeys(weights, '*fp32')
    aligned = [name for name in names if name in (*sequences, *weights, 'channels', 'group_channels')]
    source = ASTSource(
        forward_kernel,
        types,
        {(names.index(name),): value for name, value in options.items()},
        {(names.index(name),): [['tt.divisibility', 16]] for name in aligned},
    )
    block = triton_tuning.tuning_for(98).forward
    assert block.channels == options['BD']
    code = compile(source, target=GPUTarget('cuda', 90, 32), options=dict(num_warps=block.warps)).asm['ptx']
    assert code.count('ex2.approx') >= 16
    assert 'shfl' not in code
