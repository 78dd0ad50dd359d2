"""Every way to compute region attention gives what plain masked attention gives."""

import re
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F

from mmmap.models.layers import region_attention as ra


def tokens(length: int, batch: int = 2, heads: int = 3, head_dim: int = 12) -> list[torch.Tensor]:
    """Queries, keys and values in float64."""
    return [torch.randn(batch, length, heads, head_dim, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention from its formula."""
    scores = torch.einsum('bqhd,bkhd->bhqk', q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float('-inf'))
    return torch.einsum('bhqk,bkhd->bqhd', scores.softmax(-1), v)


def assert_equals_plain(attend: ra.Attend, qkv: list[torch.Tensor], mask: torch.Tensor | None) -> None:
    weighting = torch.randn_like(qkv[0])
    outs = attend(*qkv), plain(*qkv, mask)
    torch.testing.assert_close(*outs)
    grads = [torch.autograd.grad(out, qkv, weighting) for out in outs]
    torch.testing.assert_close(*grads)


# One group, several of several regions with a shorter last one, and groups of one region each.
@pytest.mark.parametrize('runs', [(4, 4), (14, 14), (7, 1), (1, 9), (3, 80), (50, 5)])
@pytest.mark.parametrize('rule', ra.ATTENTION_RULES)
def test_equal_runs(rule, runs):
    regions, size = runs
    ids = torch.arange(regions).repeat_interleave(size)
    qkv = tokens(len(ids))
    mask = ra.attention_mask(ids, rule)
    for known in (size, None):
        assert_equals_plain(ra.region_attention(rule, ids, known), qkv, mask)


@pytest.mark.parametrize('rule', ra.ATTENTION_RULES)
def test_regions_of_each_sample(rule):
    ids = torch.stack([torch.tensor([0, 2, 1, 1, 0]), torch.tensor([1, 0, 0, 2, 1])])
    assert_equals_plain(ra.region_attention(rule, ids), tokens(5), ra.attention_mask(ids, rule))


REGIONS = {
    'runs': torch.arange(300) // 20,
    'long runs': torch.arange(512) // 256,
    'scattered': torch.randint(5, (300,)),
    'of each sample': torch.stack([torch.arange(300) // 100, torch.randint(5, (300,))]),
}


@pytest.mark.parametrize('rule', ['region_causal', 'local'])
@pytest.mark.parametrize('regions', REGIONS)
# FlexAttention says so wherever it is not compiled, as here.
@pytest.mark.filterwarnings('ignore:flex_attention called without torch.compile')
def test_flex_attention(rule, regions):
    ids = REGIONS[regions]
    qkv = [x.detach().float() for x in tokens(ids.shape[-1])]  # On a CPU it has no backward pass.
    torch.testing.assert_close(ra.AttendByBlocks(ids, rule)(*qkv), plain(*qkv, ra.attention_mask(ids, rule)))


@pytest.mark.parametrize('rule', ['region_causal', 'local'])
@pytest.mark.parametrize('regions', ['runs', 'long runs', 'of each sample'])
def test_blocks_of_flex_attention(rule, regions):
    """Blocks of scores which it computes, and which it computes without a look at the rule."""
    ids = REGIONS[regions]
    visible = ra.attention_mask(ids, rule).view(-1, 1, *(ids.shape[-1],) * 2).float()
    # A block at the end that is not filled is not fully visible.
    padding = -ids.shape[-1] % ra.FLEX_BLOCK
    share = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(visible, (0, padding, 0, padding)), ra.FLEX_BLOCK)
    block_mask = ra.AttendByBlocks(ids, rule).block_mask
    assert torch.equal(block_mask.full_kv_num_blocks, (share == 1).sum(-1))
    if regions != 'of each sample':  # There 'local' looks at more than it needs to.
        assert torch.equal(block_mask.to_dense().bool(), share > 0)


@pytest.mark.parametrize('rule', ['full', 'causal', 'local', 'region_causal'])
def test_padded_heads_change_nothing(rule, monkeypatch):
    monkeypatch.setattr(ra, '_kernel_width', lambda head_dim, _dtype, _device: head_dim + 4)
    ids = torch.arange(4).repeat_interleave(3)
    assert_equals_plain(ra.region_attention(rule, ids, 3), tokens(12), ra.attention_mask(ids, rule))


@pytest.mark.parametrize(
    ('head_dim', 'dtype', 'width'),
    [(12, torch.bfloat16, 16), (12, torch.float32, 12), (16, torch.float16, 16), (5, torch.float32, 8)],
)
def test_width_of_the_kernels(head_dim, dtype, width):
    assert ra._kernel_width(head_dim, dtype, torch.device('cpu')) == head_dim
    assert ra._kernel_width(head_dim, dtype, torch.device('cuda')) == width


def test_hidden_halves_are_not_computed(monkeypatch):
    shapes = []

    def spy(q, k, v, mask=None):
        shapes.append((q.shape[1], k.shape[1], None if mask is None else tuple(mask.shape)))
        return q

    monkeypatch.setattr(ra, 'attend', spy)
    ra.region_attention('region_causal', torch.arange(196) // 14, 14)(*tokens(196))
    assert shapes == [(56, 56, (56, 56)), (56, 112, (56, 112)), (56, 168, (56, 168)), (28, 196, (28, 196))]
    shapes.clear()
    ra.region_attention('region_causal', torch.arange(192) // 64, 64)(*tokens(192))
    assert shapes == [(64, 64, None), (64, 128, None), (64, 192, None)]
    shapes.clear()
    ra.region_attention('local', torch.arange(196) // 14, 14)(*tokens(196, batch=2))
    assert shapes == [(14, 14, None)]


def test_no_float_mask_of_all_tokens():
    """The largest tensor of a forward and backward pass at L = 512 is smaller than one (L, L) mask of floats."""
    length = 512
    qkv = [torch.randn(1, length, 16, 12, requires_grad=True) for _ in range(3)]
    attend = ra.region_attention('region_causal', torch.arange(length) // 32, 32)
    with torch.profiler.profile(profile_memory=True) as profile:
        attend(*qkv).sum().backward()
    sizes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']
    assert 0 < max(sizes) < 4 * length**2


@pytest.mark.parametrize('size', [0, 5])
def test_wrong_region_size_is_named(size):
    message = f'region_size={size}: regions of that many tokens do not fill a sequence of 12'
    with pytest.raises(ValueError, match=re.escape(message)):
        ra.region_attention('local', torch.arange(12) // 4, size)


@pytest.mark.parametrize('autocast', [True, False])
@pytest.mark.parametrize('length', [20, ra.SHORT_KEYS])
def test_short_bfloat16_attention_computes_in_float32_on_a_cpu(monkeypatch, length, autocast):
    seen = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def spy(q, *args, **kwargs):
        out = kernel(q, *args, **kwargs)
        seen.append(out.dtype)
        return out

    monkeypatch.setattr(ra.F, 'scaled_dot_product_attention', spy)
    q, k, v = (x.detach().bfloat16().requires_grad_() for x in tokens(length, batch=1))
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        out = ra.attend(q, k, v)
    assert seen == [torch.float32 if length < ra.SHORT_KEYS else torch.bfloat16]
    assert out.dtype == torch.bfloat16
    expected = plain(q.double(), k.double(), v.double(), None)
    torch.testing.assert_close(out.double(), expected, atol=1e-2, rtol=1e-2)
    out.sum().backward()
    assert q.grad.dtype == torch.bfloat16 and v.grad.abs().sum() > 0


@pytest.mark.parametrize(('device', 'cudnn'), [('cuda', False), ('cpu', True)])
def test_a_gpu_leaves_out_the_kernel_with_wrong_gradients(device, cudnn):
    with ra._kernels(torch.device(device)):
        assert torch.backends.cuda.cudnn_sdp_enabled() == cudnn
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize('masked', [True, False])
def test_attention_chooses_its_kernels_with_and_without_a_mask(masked, monkeypatch):
    inside, chosen = [], []

    @contextmanager
    def kernels(device):
        chosen.append(device)
        inside.append(True)
        yield
        inside.clear()

    plain = F.scaled_dot_product_attention
    monkeypatch.setattr(ra, '_kernels', kernels)
    monkeypatch.setattr(ra.F, 'scaled_dot_product_attention', lambda *args, **kw: inside and plain(*args, **kw))
    q = torch.randn(2, 64, 3, 16)
    ra.attend(q, q, q, torch.ones(64, 64, dtype=torch.bool) if masked else None)
    assert chosen == [q.device]
