"""What tokens hear of their neighbours in space, alone and inside the encoder."""

import pytest
import torch
import torch.nn.functional as F

from mmmap.models.layers import HybridEncoder, LocalAggregation
from mmmap.ops import knn


@pytest.mark.parametrize('training', [True, False])
def test_equals_the_formulas_token_by_token(training):
    local = LocalAggregation(6).train(training)
    for parameter in local.parameters():
        torch.nn.init.normal_(parameter)
    x, neighbours = torch.randn(2, 5, 6), torch.randint(5, (2, 5, 3))
    out = local(x, neighbours)
    for cloud in range(2):
        tokens = local.norm(x[cloud])
        differences = torch.stack([tokens[near] - token for near, token in zip(neighbours[cloud], tokens, strict=True)])
        differences = differences / (differences.var() + 1e-5).sqrt()
        for i, token in enumerate(tokens):
            values = torch.cat([differences[i], token.expand(3, -1)], dim=1) * local.scale + local.shift
            pooled = (values * values.exp()).sum(dim=0) / values.exp().sum(dim=0)
            expected = F.silu(local.proj(local.norm_pooled(pooled)))
            torch.testing.assert_close(out[cloud, i], expected, rtol=1e-4, atol=1e-5)


def test_a_token_without_a_place_hears_of_none():
    local = LocalAggregation(6)
    x, neighbours = torch.randn(2, 5, 6), torch.randint(4, (2, 4, 3))
    out = local(x, neighbours)
    assert not out[:, 0].any()
    torch.testing.assert_close(out[:, 1:], local(x[:, 1:], neighbours))


def test_tokens_at_one_place_stay_finite():
    local = LocalAggregation(6)
    x = torch.randn(1, 1, 6).expand(1, 4, 6).clone().requires_grad_()
    local(x, torch.randint(4, (1, 4, 2))).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('layout', ['M', 'T', 'MT'])
def test_the_encoder_takes_the_nearest_tokens(layout):
    encoder = HybridEncoder(8, layout, num_heads=2, d_state=4, local_neighbours=3).eval()
    x, coords = torch.randn(2, 6, 8), torch.rand(2, 6, 3)
    expected = knn(coords, coords, 3)[1]
    seen = []
    for block in encoder.blocks:
        block.local.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[1]))
    out = encoder(x, coords=coords)
    assert len(seen) == len(layout)
    assert all(torch.equal(neighbours, expected) for neighbours in seen)
    assert not torch.allclose(out, encoder(x, coords=torch.rand(2, 6, 3)))
    encoder.with_cp = True
    torch.testing.assert_close(encoder(x, coords=coords), out)


def test_fewer_tokens_than_neighbours_are_all_neighbours():
    encoder = HybridEncoder(8, 'MT', num_heads=2, local_neighbours=9)
    assert encoder(torch.randn(1, 4, 8), coords=torch.rand(1, 4, 3)).shape == (1, 4, 8)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match='local_neighbours=-1'):
        HybridEncoder(8, 'M', local_neighbours=-1)
    encoder, x = HybridEncoder(8, 'M', local_neighbours=3), torch.randn(1, 4, 8)
    with pytest.raises(ValueError, match='coords: local_neighbours=3'):
        encoder(x)
    with pytest.raises(ValueError, match=r'causal_regions: .*local_neighbours=3'):
        encoder(x, causal_regions=torch.arange(4), coords=torch.rand(1, 4, 3))
