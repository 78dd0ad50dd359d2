"""The rules by which Mamba and Transformer blocks share a stream and a branch."""

import math
import shutil
from collections import Counter

import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmmap.models.layers import Context, HybridEncoder, MambaMixer, TransformerBlock
from mmmap.utils.benchmark import peak_memory


def make(layout: str, **options) -> HybridEncoder:
    """A small encoder with nothing left at zero or one."""
    encoder = HybridEncoder(16, layout, num_heads=4, d_state=4, **options)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder


def rms(norm: nn.RMSNorm, x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight


class Steps:
    """M(i, s): the mixer of block i behind its norm. T(i, x): block i, a plain ViT block."""

    def __init__(self, encoder: HybridEncoder) -> None:
        self.encoder = encoder

    def M(self, i, s):
        return self.encoder.blocks[i].mixer(rms(self.encoder.blocks[i].norm, s))

    def T(self, i, x):
        return self.encoder.blocks[i](None, x, Context())[1]


def m(f, x):
    return x + f.M(0, x)


def t(f, x):
    return f.T(0, x)


def mmm(f, x, first=0):
    s = x + f.M(first, x)
    s = s + f.M(first + 1, s)
    return s, f.M(first + 2, s)


def mmmt(f, x):
    s, h = mmm(f, x)
    return s + f.T(3, h) + h


def tmmm(f, x):
    return sum(mmm(f, f.T(0, x), first=1))


def mmtt(f, x):
    s = x + f.M(0, x)
    h = f.M(1, s)
    return s + f.T(3, f.T(2, h) + h)


def ttmm(f, x):
    s = f.T(1, f.T(0, x))
    s = s + f.M(2, s)
    return s + f.M(3, s)


def mtmt(f, x):
    h = f.M(0, x)
    s = x + f.T(1, h) + h
    h = f.M(2, s)
    return s + f.T(3, h) + h


RULES = {rule.__name__.upper(): rule for rule in (m, t, mmmt, tmmm, mmtt, ttmm, mtmt)}


@pytest.mark.parametrize('layout', RULES)
@pytest.mark.parametrize('length', [1, 6])
def test_rules(layout, length):
    encoder = make(layout).eval()
    x = torch.randn(2, length, 16)
    torch.testing.assert_close(encoder(x), rms(encoder.norm, RULES[layout](Steps(encoder), x)), rtol=1e-5, atol=1e-5)


def test_a_transformer_only_layout_is_a_vit():
    encoder = make('TTT').eval()
    x = torch.randn(2, 5, 16)
    y = x
    for block in encoder.blocks:
        # torch's own pre-norm layer, with the weights of the block.
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0, activation='gelu', batch_first=True, norm_first=True)
        theirs = {
            'self_attn.in_proj_': 'attn.qkv.',
            'self_attn.out_proj.': 'attn.proj.',
            'linear1.': 'mlp.fc1.',
            'linear2.': 'mlp.fc2.',
            'norm1.': 'norm1.',
            'norm2.': 'norm2.',
        }
        weights = block.state_dict()
        layer.load_state_dict(
            {their + kind: weights[our + kind] for their, our in theirs.items() for kind in ('weight', 'bias')}
        )
        y = layer.eval()(y)
    torch.testing.assert_close(encoder(x), rms(encoder.norm, y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('layout', ['MMMT', 'TMMT', 'MTTM', 'TT'])
def test_a_tap_is_the_output_of_the_encoder_cut_off_there(layout):
    encoder = make(layout, drop_path_rate=0.5).eval()
    x = torch.randn(2, 5, 16)
    taps = encoder(x, out_indices=range(len(layout)))
    assert len(taps) == len(layout)
    for i, tap in enumerate(taps):
        short = make(layout[: i + 1]).eval()
        short.load_state_dict({k: v for k, v in encoder.state_dict().items() if k in short.state_dict()})
        torch.testing.assert_close(tap, short(x))
    torch.testing.assert_close(taps[-1], encoder(x))


def test_taps_come_in_the_order_asked_for():
    encoder = make('MMT').eval()
    x = torch.randn(1, 4, 16)
    every = encoder(x, out_indices=(0, 1, 2))
    for mine, i in zip(encoder(x, out_indices=(2, 0, 2)), (2, 0, 2), strict=True):
        assert torch.equal(mine, every[i])


def test_drop_path_schedule():
    encoder = make('MMMT' * 2, drop_path_rate=0.3)
    rates = [block.drop_path.drop_prob for block in encoder.blocks if not isinstance(block, TransformerBlock)]
    # Mamba-R: [0] + linspace(0, rate, depth), one for each M block, the last for the final sum.
    assert rates == pytest.approx([0, 0, 0.06, 0.12, 0.18, 0.24])
    assert encoder.drop_path.drop_prob == 0.3


def test_drop_path_drops_whole_branches_in_training_only():
    encoder = make('M', drop_path_rate=0.25)
    encoder.norm = nn.Identity()
    x = torch.randn(1, 3, 16).expand(400, -1, -1)
    branch = encoder.eval()(x)[0] - x[0]
    out = encoder.train()(x) - x
    dropped = (out == 0).all(dim=(1, 2))
    kept = (out - branch / 0.75).abs().amax(dim=(1, 2)) < 1e-4
    assert (dropped | kept).all()
    assert 0.15 < dropped.float().mean() < 0.35


def test_eval_ignores_drop_path():
    encoder, plain = make('MMMT', drop_path_rate=0.9).eval(), make('MMMT').eval()
    plain.load_state_dict(encoder.state_dict())
    x = torch.randn(2, 5, 16)
    assert torch.equal(encoder(x), plain(x))


@pytest.mark.parametrize('layout', ['MMMT', 'TTM', 'MTT'])
def test_checkpointing_changes_neither_values_nor_gradients(layout):
    results = []
    encoder = make(layout, drop_path_rate=0.5).train()
    x = torch.randn(4, 5, 16, requires_grad=True)
    for with_cp in (False, True, 'selective'):
        encoder.with_cp = with_cp
        calls = []
        handles = [block.register_forward_pre_hook(lambda *_, c=calls: c.append(1)) for block in encoder.blocks]
        torch.manual_seed(3)
        out = encoder(x)
        results.append([out, *torch.autograd.grad(out.square().sum(), [x, *encoder.parameters()])])
        for handle in handles:
            handle.remove()
        assert len(calls) == len(layout) * (1 + bool(with_cp))  # Recomputed once in backward.
    for plain, *recomputed in zip(*results, strict=True):
        assert all(torch.equal(plain, other) for other in recomputed)


class NamesOfOperators(TorchDispatchMode):
    """Gathers the names of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.called[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_selective_checkpointing_computes_neither_scans_nor_attention_again():
    encoder = make('MMMT', with_cp='selective')
    with NamesOfOperators() as forward:
        loss = encoder(torch.randn(2, 5, 16)).square().sum()
    with NamesOfOperators() as backward:
        loss.backward()
    (attention,) = (name for name in forward.called if 'dot_product' in name)
    assert forward.called['mmmap.bidirectional_scan.default'] == 3
    assert backward.called['mmmap.bidirectional_scan.default'] == 0
    assert forward.called[attention] == 1
    assert backward.called[attention] == 0
    assert forward.called['mmmap.bidirectional_conv1d.default'] == 3
    assert backward.called['mmmap.bidirectional_conv1d.default'] == 3


def test_selective_checkpointing_keeps_less():
    peaks = {}
    for with_cp in (False, True, 'selective'):
        encoder = make('MMMT' * 2, with_cp=with_cp)
        x = torch.randn(8, 200, 16)
        peaks[with_cp] = peak_memory(lambda encoder=encoder, x=x: encoder(x).square().sum().backward())
    assert peaks[True] < peaks['selective'] < 0.75 * peaks[False]


def test_unknown_checkpointing_is_named():
    with pytest.raises(ValueError, match="with_cp='scan'"):
        make('M', with_cp='scan')


def test_bfloat16_autocast_keeps_the_stream_in_float32():
    encoder = make('TMMT').eval()
    x = torch.randn(2, 5, 16)
    streams = []
    for block in encoder.blocks:
        if hasattr(block, 'mixer'):
            block.register_forward_hook(lambda _module, _inputs, output: streams.append(output[1].dtype))
    with torch.no_grad():
        exact = encoder(x)
        streams.clear()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            half = encoder(x)
            from_half = encoder(x.bfloat16())
    assert streams == [torch.float32] * 4
    assert half.dtype == from_half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.1
    assert (from_half - exact).abs().max() < 0.15


def test_bfloat16_autocast_trains():
    encoder = make('MMMT')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = encoder(torch.randn(2, 5, 16)).square().mean()
    loss.backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name


def test_float64():
    encoder = make('MMMT').double()
    assert encoder(torch.randn(1, 5, 16, dtype=torch.float64)).dtype == torch.float64


def mixers(encoder: nn.Module) -> list[MambaMixer]:
    return [module for module in encoder.modules() if isinstance(module, MambaMixer)]


def test_default_initialisation_keeps_the_step_sizes_of_mamba():
    encoder = HybridEncoder(64, 'MMMT', num_heads=4)
    steps = torch.cat([nn.functional.softplus(mixer.dt_proj_bias.detach()).flatten() for mixer in mixers(encoder)])
    assert len(steps) == 3 * 2 * 128
    assert steps.min() >= 1e-3 * 0.999
    assert steps.max() <= 1e-1 * 1.001
    log_uniform = stats.uniform(math.log(1e-3), math.log(100))
    assert stats.kstest(steps.log().numpy(), log_uniform.cdf).pvalue > 1e-3
    for mixer in mixers(encoder):
        assert mixer.dt_proj_weight.abs().max() <= mixer.dt_rank**-0.5


def test_released_initialisation_overwrites_them():
    encoder = HybridEncoder(64, 'MMMT', num_heads=4, weight_init='released')
    for mixer in mixers(encoder):
        assert not mixer.dt_proj_bias.any()
        assert mixer.dt_proj_weight.abs().max() <= (6 / (4 + 128)) ** 0.5


@pytest.mark.parametrize('weight_init', ['mamba', 'released'])
def test_what_both_initialisations_share(weight_init):
    encoder = HybridEncoder(64, 'MMT', num_heads=4, weight_init=weight_init)
    for mixer in mixers(encoder):
        assert torch.equal(mixer.A_log, torch.arange(1, 17).float().log().expand(2, 128, 16))
        assert torch.equal(mixer.D, torch.ones(2, 128))
        assert mixer.conv_weight.std().item() == pytest.approx(0.5 / 3**0.5, rel=0.15)
    blocks = [module for module in encoder.modules() if isinstance(module, TransformerBlock)]
    linears = [linear for mixer in mixers(encoder) for linear in (mixer.in_proj, mixer.out_proj)]
    linears += [module for block in blocks for module in block.modules() if isinstance(module, nn.Linear)]
    weights = [linear.weight for linear in linears]
    weights += [weight for mixer in mixers(encoder) for weight in mixer.x_proj_weight]
    for weight in weights:
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.95 * bound < weight.abs().max() <= bound
    assert all(linear.bias is None or not linear.bias.any() for linear in linears)
    assert torch.equal(encoder.norm.weight, torch.ones(64))


@pytest.mark.parametrize(
    ('options', 'culprit'),
    [
        (dict(layout='MxT'), "layout='MxT'"),
        (dict(layout='mmmt'), "layout='mmmt'"),
        (dict(layout='MT', weight_init='best'), "weight_init='best'"),
        (dict(layout='MT', drop_path_rate=1.0), 'drop_path_rate=1.0'),
        (dict(layout='MT', drop_path_rate=-0.1), 'drop_path_rate=-0.1'),
        (dict(layout='MT', num_heads=3), 'num_heads=3'),
    ],
)
def test_wrong_arguments_are_named(options, culprit):
    with pytest.raises(ValueError, match=culprit):
        HybridEncoder(16, **options)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match='cuda12'):
        HybridEncoder(16, 'M', scan_backend='cuda12')(torch.randn(1, 2, 16))


@pytest.mark.skipif(shutil.which('c++') is None, reason='torch.compile needs a C++ compiler')
def test_compiles_into_one_graph():
    torch.manual_seed(0)
    encoder = HybridEncoder(16, 'MT', num_heads=2)
    tokens = torch.randn(2, 9, 16, requires_grad=True)
    weighting = torch.randn(2, 9, 16)
    results = []
    for function in (encoder, torch.compile(encoder, fullgraph=True)):
        out = function(tokens)
        results.append([out, *torch.autograd.grad(out, [tokens, *encoder.parameters()], weighting)])
    for eager, compiled in zip(*results, strict=True):
        assert (eager - compiled).abs().max() <= 1e-5 * eager.abs().max()


@pytest.mark.parametrize('layout', ['MMMT', 'T', 'M', 'TMT'])
@pytest.mark.parametrize('with_cp', [False, True])
def test_a_causal_encoder_sees_no_later_region(layout, with_cp):
    encoder = make(layout, with_cp=with_cp)
    regions = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    x = torch.randn(1, 7, 16, requires_grad=True)
    out = encoder(x, causal_regions=regions)
    for i in range(7):
        (gradient,) = torch.autograd.grad(out[0, i].sum(), x, retain_graph=True)
        reached = gradient[0].abs().sum(-1) > 0
        assert not reached[regions > regions[i]].any()
        assert reached[: i + 1].all()
        if layout == 'M':  # A scan goes by tokens, attention by regions.
            assert not reached[i + 1 :].any()
        elif layout == 'T':
            assert reached[regions <= regions[i]].all()
