"""Choosing a backend: names, reasons, the fallback, and mamba_ssm through stand-ins for its packages."""

import os
import re
import subprocess
import sys
import threading
import types
import warnings

import pytest
import torch
from scan_cases import assert_close, convert, run, scan_inputs

from mmmap.ops import available_backends, backends, causal_conv1d, selective_scan, use_backend
from mmmap.ops.backends import mamba_ssm, native
from mmmap.ops.backends.reference import causal_conv1d_reference, selective_scan_reference


@pytest.fixture
def tiny():
    return {name: x.float() for name, x in scan_inputs(length=5).items()}


@pytest.fixture
def no_native(monkeypatch):
    monkeypatch.setattr(backends.get_backend('native'), 'unavailable', lambda: 'the native kernels are not built')
    backends._warn_fallback.cache_clear()
    yield
    backends._warn_fallback.cache_clear()


def forget_packages():
    mamba_ssm._find.cache_clear()
    mamba_ssm._conv_function.cache_clear()


def test_list_of_backends():
    reasons = available_backends()
    assert list(reasons) == ['reference', 'native', 'triton', 'mamba_ssm', 'torch']
    assert reasons['reference'] is None and reasons['torch'] is None
    assert all(reason is None or (reason and '\n' not in reason) for reason in reasons.values())


@pytest.mark.parametrize('name', ['mamba_ssm', 'fortran'])
def test_unusable_backend_lists_what_there_is(name, tiny):
    with pytest.raises(ValueError, match=f"'{name}' is (unknown|not available); available: auto, reference") as caught:
        selective_scan(**tiny, backend=name)
    for other, reason in available_backends().items():
        assert other in str(caught.value) and (reason is None or reason in str(caught.value))
    with pytest.raises(ValueError, match=name), use_backend(name):
        pass


def test_backend_on_the_wrong_device_is_an_error():
    if available_backends()['native'] is not None:
        pytest.skip('native is not built')
    with pytest.raises(ValueError, match="'native' cannot run this: the tensors are on cuda"):
        backends.resolve_backend('native', 'cuda', torch.float32)


def test_a_library_built_from_other_sources_is_told_in_one_line(monkeypatch):
    if available_backends()['native'] is not None:
        pytest.skip('native is not built')
    assert native._load.__wrapped__() is None
    monkeypatch.setattr(native, '_INTERFACE', 99)
    reason = native._load.__wrapped__()
    assert re.match(r'_native\S+ was built from other sources \(interface \d+, needed 99\); build it with', reason)
    assert '\n' not in reason


def test_use_backend_overrides_auto_in_this_thread_only(tiny):
    def is_reference():
        # The reference is differentiated line by line, the others are one operator.
        out = selective_scan(**{**tiny, 'u': tiny['u'].requires_grad_()})
        return 'selective_scan' not in out.grad_fn.name()

    assert not is_reference()
    elsewhere = []
    with use_backend('reference'):
        assert is_reference()
        with use_backend('torch'):
            assert not is_reference()
        assert is_reference()
        thread = threading.Thread(target=lambda: elsewhere.append(is_reference()))
        thread.start()
        thread.join()
    assert elsewhere == [False]
    assert not is_reference()


def test_environment_variable(monkeypatch):
    monkeypatch.setenv('MMMAP_SCAN_BACKEND', 'torch')
    assert backends.resolve_backend('auto', 'cpu', torch.float32) == 'torch'
    with use_backend('reference'):
        assert backends.resolve_backend('auto', 'cpu', torch.float32) == 'reference'
    monkeypatch.setenv('MMMAP_SCAN_BACKEND', 'nonsense')
    with pytest.raises(ValueError, match='nonsense'):
        backends.resolve_backend('auto', 'cpu', torch.float32)


def test_fallback_is_used_and_said_once(no_native, tiny):
    with pytest.warns(UserWarning, match='plain torch, which is slow: the native kernels are not built') as caught:
        out = selective_scan(**tiny)
        selective_scan(**tiny)
    assert len(caught) == 1
    torch.testing.assert_close(out, selective_scan(**tiny, backend='torch'), rtol=0, atol=0)
    with pytest.raises(ValueError, match="'native' is not available"):
        selective_scan(**tiny, backend='native')


def test_no_warning_where_the_choice_was_made(no_native, tiny):
    with warnings.catch_warnings(), use_backend('torch'):
        warnings.simplefilter('error')
        selective_scan(**tiny)


def test_fallback_keeps_less_than_the_reference():
    inputs = convert(scan_inputs(batch=1, channels=32, length=512, states=16), torch.float32)
    kept = {}
    for name in ('torch', 'reference'):
        seen = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, seen=seen: seen.setdefault(x.data_ptr(), x), lambda x: x
        ):
            out = selective_scan(**inputs, backend=name)
        kept[name] = sum(x.untyped_storage().nbytes() for x in seen.values())
        del out
    assert kept['torch'] * 5 < kept['reference']


@pytest.mark.parametrize('capability', ['default', 'avx2'])
def test_kernels_of_lesser_instruction_sets(capability):
    if available_backends()['native'] is not None:
        pytest.skip('native is not built')
    code = (
        'import sys, types; m = types.ModuleType("mmmap"); m.__path__ = [sys.argv[1]]; sys.modules["mmmap"] = m\n'
        'import torch; from mmmap.ops import selective_scan as scan\n'
        'torch.manual_seed(0)\n'
        'u, delta, z = (torch.randn(2, 21, 40, requires_grad=True) for _ in range(3))\n'
        'B, C = (torch.randn(2, 5, 40, requires_grad=True) for _ in range(2))\n'
        'A = (-torch.rand(21, 5)).requires_grad_()\n'
        'grads = [torch.autograd.grad(scan(u, delta, A, B, C, z=z, delta_softplus=True, backend=name).square().sum(), '
        '[u, delta, z, A, B, C]) for name in ("native", "reference")]\n'
        'for a, b in zip(*grads): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)\n'
    )
    package = os.path.dirname(os.path.dirname(os.path.dirname(backends.__file__)))
    environment = {**os.environ, 'ATEN_CPU_CAPABILITY': capability}
    subprocess.run([sys.executable, '-c', code, package], env=environment, check=True)


def test_import_needs_torch_alone():
    code = (
        'import sys, types; m = types.ModuleType("mmmap"); m.__path__ = [sys.argv[1]]; sys.modules["mmmap"] = m\n'
        'import mmmap.ops\n'
        # torch itself imports triton where it is installed; our kernels, which need it, must wait.
        'unwanted = {"mmengine", "mmcv", "mmpretrain", "mamba_ssm", "causal_conv1d"}\n'
        'unwanted |= {"mmmap.ops.backends.triton_scan"}\n'
        'found = unwanted & set(sys.modules)\n'
        'assert not found, found\n'
    )
    package = os.path.dirname(os.path.dirname(os.path.dirname(backends.__file__)))
    subprocess.run([sys.executable, '-c', code, package], check=True)


class _ScanStandIn(torch.autograd.Function):
    """As mamba-ssm's: one autograd function, no gradient of the last state."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias)
        ctx.delta_softplus = delta_softplus
        return selective_scan_reference(u, delta, A, B, C, D, z, delta_bias, delta_softplus)

    @staticmethod
    def backward(ctx, dout, _):
        options = (ctx.delta_softplus, False, True, 'torch')
        tensors = ctx.saved_tensors
        saved = torch.ops.mmmap.selective_scan(*tensors, *options)[2]
        grads = torch.ops.mmmap.selective_scan_backward(dout, None, saved, *tensors, ctx.delta_softplus, False, 'torch')
        return (*(grad if x is not None else None for x, grad in zip(tensors, grads, strict=True)), None)


class _ConvStandIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, silu):
        ctx.save_for_backward(x, weight, bias)
        ctx.silu = silu
        return causal_conv1d_reference(x, weight, bias, silu)

    @staticmethod
    def backward(ctx, dout):
        x, weight, bias = ctx.saved_tensors
        grads = torch.ops.mmmap.causal_conv1d_backward(dout, x, weight, bias, ctx.silu, False, 'torch')
        return *(grad if t is not None else None for t, grad in zip((x, weight, bias), grads, strict=True)), None


@pytest.fixture
def stand_ins(monkeypatch):
    """Modules with the public functions of mamba-ssm and causal-conv1d, which record how they are called."""
    calls = []

    def selective_scan_fn(
        u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
    ):
        calls.append(dict(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias))
        out, last = _ScanStandIn.apply(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        return (out, last) if return_last_state else out

    def causal_conv1d_fn(
        x,
        weight,
        bias=None,
        seq_idx=None,
        initial_states=None,
        return_final_states=False,
        final_states_out=None,
        activation=None,
    ):
        assert activation in (None, 'silu', 'swish') and 2 <= weight.shape[1] <= 4
        calls.append(dict(x=x, weight=weight, bias=bias))
        return _ConvStandIn.apply(x, weight, bias, activation is not None)

    interface = types.SimpleNamespace(selective_scan_fn=selective_scan_fn)
    monkeypatch.setitem(sys.modules, 'mamba_ssm', types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, 'mamba_ssm.ops', types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, 'mamba_ssm.ops.selective_scan_interface', interface)
    monkeypatch.setitem(sys.modules, 'causal_conv1d', types.SimpleNamespace(causal_conv1d_fn=causal_conv1d_fn))
    # The stand-ins compute on the CPU.
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(backends.get_backend('mamba_ssm'), 'unsupported', lambda device, dtype: None)
    forget_packages()
    yield calls
    forget_packages()


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('gate', [False, True])
def test_mamba_ssm_scan(gate, reverse, stand_ins):
    inputs = convert(scan_inputs(channels=6, length=20, gate=gate), torch.float32)
    options = dict(delta_softplus=True, reverse=reverse)
    found = run(selective_scan, inputs, backend='mamba_ssm', **options)
    assert len(stand_ins) == 2  # forward, and again for backward
    assert all(call['A'].dtype == call['delta_bias'].dtype == torch.float32 for call in stand_ins)
    assert_close(found, run(selective_scan, inputs, backend='reference', **options), 1e-5)
    assert found['output 0'].stride() == inputs['u'].stride()


def test_mamba_ssm_gets_one_type(stand_ins):
    inputs = convert(scan_inputs(length=20), torch.bfloat16)
    out = selective_scan(**inputs, backend='mamba_ssm')
    assert out.dtype == torch.bfloat16
    for name, x in stand_ins[0].items():
        assert x.dtype == (torch.float32 if name in ('A', 'D', 'delta_bias') else torch.bfloat16)
    inputs['B'] = inputs['B'].detach().float()
    assert selective_scan(**inputs, backend='mamba_ssm').dtype == torch.bfloat16
    assert {x.dtype for x in stand_ins[1].values()} == {torch.float32}


def test_mamba_ssm_last_state(stand_ins):
    inputs = convert(scan_inputs(length=20), torch.float32)
    out, last = selective_scan(**inputs, return_last_state=True, backend='mamba_ssm')
    torch.testing.assert_close(last, selective_scan(**inputs, return_last_state=True, backend='reference')[1])
    with pytest.raises(RuntimeError, match='no gradient of the last state'):
        (out.sum() + last.sum()).backward()


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize(('taps', 'calls'), [(4, 2), (5, 0)])
def test_mamba_ssm_convolution(taps, calls, reverse, stand_ins):
    x, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((2, 6, 20), (6, taps), (6,)))
    inputs = {'x': x, 'weight': weight, 'bias': bias}
    options = dict(activation='silu', reverse=reverse)
    found = run(causal_conv1d, inputs, backend='mamba_ssm', **options)
    assert len(stand_ins) == calls
    assert_close(found, run(causal_conv1d, inputs, backend='reference', **options), 1e-5)


def test_broken_mamba_ssm_is_a_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setitem(sys.modules, 'mamba_ssm', None)
    forget_packages()
    assert 'cannot be imported' in available_backends()['mamba_ssm']
    forget_packages()


@pytest.mark.skipif(available_backends()['mamba_ssm'] is not None, reason=str(available_backends()['mamba_ssm']))
@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_mamba_ssm_itself(dtype, reverse):
    inputs = {
        name: None if x is None else x.cuda().detach().requires_grad_()
        for name, x in convert(scan_inputs(channels=24, length=70, states=16), dtype).items()
    }
    options = dict(delta_softplus=True, reverse=reverse)

    def grads(backend):
        out = selective_scan(**inputs, backend=backend, **options)
        return [out, *torch.autograd.grad(out.float().square().sum(), list(inputs.values()))]

    tolerance = 2e-4 if dtype == torch.float32 else 5e-2
    for a, b in zip(grads('mamba_ssm'), grads('reference'), strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()
