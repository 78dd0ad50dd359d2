"""Which token sees which in the decoder, and how hidden tokens are put back."""

import json
from functools import partial

import pytest
import torch

from mmmap.models.layers import DecoderBlock, GridSerialization, GridTokens, grid_coords
from mmmap.models.layers.region_attention import ATTENTION_RULES, attend, attention_mask
from mmmap.models.necks import RegionCausalDecoder
from mmmap.registry import MODELS

ROWS = GridSerialization('row')
SEES = {
    'region_causal': lambda query, key, regions: regions[key] <= regions[query],
    'full': lambda query, key, regions: True,
    'causal': lambda query, key, regions: key <= query,
    'local': lambda query, key, regions: regions[key] == regions[query],
}


def allowed(rule: str, regions: list[int]) -> torch.Tensor:
    """True where the query (row) may see the key (column), one pair at a time."""
    length = range(len(regions))
    return torch.tensor([[SEES[rule](query, key, regions) for key in length] for query in length])


def test_every_rule_is_covered():
    assert set(SEES) == set(ATTENTION_RULES)


@pytest.mark.parametrize('rule', SEES)
@pytest.mark.parametrize('grid', [(4, 4), (3, 5), (1, 6), (6, 1)])
def test_rules_on_rows(rule, grid):
    regions = ROWS.regions(grid)
    mask = attention_mask(regions, rule)
    mask = torch.ones(len(regions), len(regions), dtype=torch.bool) if mask is None else mask
    assert torch.equal(mask, allowed(rule, regions.tolist()))


@pytest.mark.parametrize('rule', SEES)
def test_rules_on_regions_of_each_sample(rule):
    regions = torch.stack([torch.tensor([0, 2, 1, 1, 0]), torch.tensor([1, 0, 0, 2, 1])])
    mask = attention_mask(regions, rule)
    mask = torch.ones(1, dtype=torch.bool) if mask is None else mask
    expected = torch.stack([allowed(rule, sample) for sample in regions.tolist()])[:, None]
    assert torch.equal(mask.expand(2, 3, 5, 5), expected.expand(2, 3, 5, 5))


def test_the_released_decoder_mask(data_dir):
    rows = json.loads((data_dir / 'released_facts.json').read_text())['decoder_mask_4x4']
    released = torch.tensor([[cell == '1' for cell in row] for row in rows])
    assert torch.equal(attention_mask(ROWS.regions((4, 4)), 'region_causal'), released)


def decoder(**options) -> RegionCausalDecoder:
    """A small decoder with nothing left at zero."""
    neck = RegionCausalDecoder(**(dict(in_dim=8, grid=(3, 2), embed_dim=16, depth=3, num_heads=4) | options))
    with torch.no_grad():
        for parameter in neck.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return neck


def tokens_of(mask: torch.Tensor, grid: tuple[int, int], region_size: int | None = None) -> GridTokens:
    return GridTokens(mask[..., None].float(), grid_coords(grid), ROWS.regions(grid), region_size, grid=grid)


def decode(
    neck: torch.nn.Module, latent: torch.Tensor, mask: torch.Tensor, grid: tuple[int, int], size: int | None = None
) -> torch.Tensor:
    tokens = tokens_of(mask, grid, size)
    return neck(latent, tokens.visible_indices(mask, int(mask[0].sum())), tokens)


MASK = torch.tensor([[1, 0, 0, 1, 1, 0], [0, 1, 0, 0, 1, 1]]).bool()


@pytest.mark.parametrize('rule', SEES)
def test_what_reaches_a_prediction(rule):
    neck = decoder(attention=rule).double()
    latent = torch.randn(2, 3, 8, dtype=torch.float64)
    regions, places = ROWS.regions((3, 2)), (~MASK).nonzero()[:, 1].view(2, 3)

    def decoded(latent, positions):
        neck.pos_embed.forward = lambda _grid: positions
        return decode(neck, latent, MASK, (3, 2)).square().sum(-1)

    positions = torch.randn(1, 6, 16, dtype=torch.float64)
    by_latent, by_position = torch.autograd.functional.jacobian(decoded, (latent, positions))
    expected = allowed(rule, regions.tolist())
    # Positions belong to all tokens, hidden ones as well. None of the rules reaches further through more blocks.
    for sample in range(2):
        assert torch.equal(by_position[sample, :, 0].abs().sum(-1) > 1e-9, expected)
        reached = by_latent[sample, :, sample].abs().sum(-1) > 1e-9
        assert torch.equal(reached, expected[:, places[sample]])
        assert not by_latent[sample, :, 1 - sample].any()


def test_later_regions_do_not_change_earlier_predictions():
    neck = decoder()
    latent = torch.randn(2, 3, 8)
    before = decode(neck, latent, MASK, (3, 2))
    latent[0, 2] += 1  # Token 5 of the first sample, in row 2.
    latent[1, 1] += 1  # Token 2 of the second one, in row 1.
    after = decode(neck, latent, MASK, (3, 2))
    changed = (before != after).any(-1)
    assert changed.tolist() == [[False] * 4 + [True] * 2, [False] * 2 + [True] * 4]


@pytest.mark.parametrize('rule', SEES)
def test_knowing_the_regions_changes_no_prediction(rule):
    neck = decoder(attention=rule, grid=(10, 12))
    mask = torch.rand(2, 120).argsort(dim=1) < 60
    latent = torch.randn(2, 60, 8)
    known, unknown = (decode(neck, latent, mask, (10, 12), size) for size in (12, None))
    torch.testing.assert_close(known, unknown)


# Tracing both passes takes the first backend; making kernels of them, as users do, takes many times longer.
@pytest.mark.parametrize(('rule', 'backend'), [*((rule, 'aot_eager') for rule in SEES), ('region_causal', 'inductor')])
def test_compiled_equals_eager(rule, backend):
    neck = decoder(attention=rule, grid=(10, 12), depth=1)
    compiled = torch.compile(neck, fullgraph=True, backend=backend)
    mask = torch.rand(2, 120).argsort(dim=1) < 60
    latent = torch.randn(2, 60, 8, requires_grad=True)
    wanted = [latent, *neck.parameters()]
    results = []
    for function in (neck, compiled):
        out = decode(function, latent, mask, (10, 12), 12)
        results.append([out, *torch.autograd.grad(out.square().mean(), wanted)])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_tokens_are_put_back_where_they_came_from():
    neck = decoder(depth=0, in_dim=16)
    neck.embed = neck.norm = torch.nn.Identity()
    neck.pos_embed.forward = lambda _grid: torch.zeros(1, 6, 16)
    sequence = torch.randn(2, 6, 16)
    latent = sequence[~MASK].view(2, 3, 16)
    out = decode(neck, latent, MASK, (3, 2))
    assert torch.equal(out[~MASK], sequence[~MASK])
    assert torch.equal(out[MASK], neck.mask_token[0].expand(6, -1))


@pytest.mark.parametrize('masked', [False, True])
def test_block_equals_its_formulas(masked):
    block = DecoderBlock(8, 2, mlp_ratio=3)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    block = block.double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    visible = torch.rand(5, 5) < 0.5
    visible |= torch.eye(5, dtype=torch.bool)

    def layer_norm(norm, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias

    def linear(layer, x):
        return torch.einsum('...i,oi->...o', x, layer.weight) + layer.bias

    q = linear(block.attn.q, layer_norm(block.norm_query, x)).view(2, 5, 2, 4)
    k, v = linear(block.attn.kv, layer_norm(block.norm_context, x)).view(2, 5, 2, 2, 4).unbind(2)
    scores = torch.einsum('bqhd,bkhd->bhqk', q, k) / 2.0  # The root of a head's four channels.
    if masked:
        scores = scores.masked_fill(~visible, float('-inf'))
    heads = torch.einsum('bhqk,bkhd->bqhd', scores.softmax(-1), v).reshape(2, 5, 8)
    y = x + linear(block.attn.proj, heads)
    hidden = linear(block.mlp.fc1, layer_norm(block.norm_mlp, y))
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    expected = y + linear(block.mlp.fc2, hidden)
    torch.testing.assert_close(block(x, partial(attend, mask=visible)) if masked else block(x), expected)


def test_other_grids():
    neck = decoder(grid=3)
    mask = torch.tensor([[False] * 6 + [True] * 4])
    out = decode(neck, torch.randn(1, 6, 8), mask, (2, 5))
    assert out.shape == (1, 10, 16)
    other = decoder(grid=(2, 5))
    other.load_state_dict(neck.state_dict(), strict=True)
    assert other.pos_embed.weight.shape == (1, 2, 5, 16)


def test_defaults_are_those_of_the_released_decoder():
    neck = MODELS.build(dict(type='RegionCausalDecoder', in_dim=8))
    assert neck.attention == 'region_causal'
    assert neck.embed.out_features == 192
    assert len(neck.blocks) == 4
    assert {block.attn.num_heads for block in neck.blocks} == {16}
    assert {block.mlp.fc1.out_features for block in neck.blocks} == {768}
    assert neck.pos_embed.weight.shape == (1, 14, 14, 192)


@pytest.mark.parametrize(
    ('options', 'error', 'culprit'),
    [
        (dict(attention='row'), ValueError, "attention='row'"),
        (dict(num_heads=5), ValueError, 'num_heads=5'),
        (dict(grid=(1, 2, 3)), ValueError, 'grid'),
        (dict(rule='full'), TypeError, 'rule'),
    ],
)
def test_wrong_options_are_named(options, error, culprit):
    with pytest.raises(error, match=culprit):
        MODELS.build(dict(type='RegionCausalDecoder', in_dim=8, **options))
