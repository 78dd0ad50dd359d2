"""What a token responds to, against the definitions."""

import pytest
import torch
import torch.nn.functional as F

from mmmap.analysis import area_of_half, effective_receptive_field, token_responses
from mmmap.models.layers import MambaMixer, register_order
from mmmap.models.layers.transformer_block import SelfAttention
from mmmap.ops import bidirectional_conv1d


def test_receptive_field_is_the_gradient_of_the_token(build_backbone):
    backbone = build_backbone('MT', out_type='registers').double().eval()
    images = torch.randn(2, 3, 48, 64, dtype=torch.float64)
    field = effective_receptive_field(backbone, images, (2, 1))
    assert field.shape == (48, 64) and (field > 0).all()
    assert backbone.out_type == 'registers'
    backbone.out_type = 'featmap'
    step = 1e-5
    for y, x in [(0, 0), (40, 17)]:
        expected = 0
        for image in images:
            for channel in range(3):
                moved = image.repeat(2, 1, 1, 1)
                moved[:, channel, y, x] += torch.tensor([step, -step], dtype=torch.float64)
                with torch.no_grad():
                    up, down = backbone(moved)[0][:, :, 2, 1].sum(1)
                expected += abs(up - down) / (2 * step) / 2
        assert field[y, x] == pytest.approx(float(expected), rel=1e-4)


def test_the_centre_is_looked_at_by_default(build_backbone):
    backbone = build_backbone('MT', out_type='raw').eval()
    images = torch.randn(1, 3, 64, 80)
    assert torch.equal(effective_receptive_field(backbone, images), effective_receptive_field(backbone, images, (2, 2)))


def test_area_of_half():
    field = torch.full((4, 5), 1.0)
    assert area_of_half(field) == 0.5
    field[1, 2] = 30.0
    assert area_of_half(field) == 1 / 20


def test_attention_weights_are_those_of_the_layer():
    attention = SelfAttention(embed_dim=8, num_heads=1)
    x = torch.randn(2, 7, 8)
    values = attention.qkv(x)[..., 16:]
    weights = attention.response(x, 3)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    torch.testing.assert_close(attention.proj(torch.einsum('bl,blc->bc', weights, values)), attention(x)[:, 3])
    halves = SelfAttention(embed_dim=8, num_heads=2)
    torch.testing.assert_close(halves.response(x, 3).sum(1), torch.ones(2))


@pytest.mark.parametrize('position', [0, 2, 5])
def test_scan_response_is_the_hidden_attention(position):
    mixer = MambaMixer(embed_dim=8, d_state=3, scan_backend='torch')
    torch.nn.init.normal_(mixer.dt_proj_bias)
    x = torch.randn(2, 6, 8)
    response = mixer.response(x, position)
    with torch.no_grad():
        tokens = mixer.in_proj(x).chunk(2, dim=-1)[0].transpose(1, 2)
        u = bidirectional_conv1d(tokens, mixer.conv_weight, mixer.conv_bias, activation='silu')
        expected = torch.zeros(2, 6)
        for direction in range(2):
            rows = u[:, direction].transpose(1, 2) @ mixer.x_proj_weight[direction].T
            low, B, C = rows.split([mixer.dt_rank, 3, 3], dim=-1)
            dt = F.softplus(low @ mixer.dt_proj_weight[direction].T + mixer.dt_proj_bias[direction])  # (B, L, E)
            A = -mixer.A_log[direction].exp()
            for j in range(position + 1) if direction == 0 else range(position, 6):
                between = dt[:, j + 1 : position + 1] if direction == 0 else dt[:, position:j]
                decay = (between.sum(1)[..., None] * A).exp()  # (B, E, N)
                a = (C[:, None, position] * decay * dt[:, j, :, None] * B[:, None, j]).sum(-1)
                expected[:, j] += (a / 2).abs().mean(1)
    torch.testing.assert_close(response, expected)


@pytest.mark.parametrize('serialization', ['row', 'column'])
def test_maps_show_tokens_where_they_lie_in_the_image(build_backbone, serialization):
    backbone = build_backbone('TMT', serialization=serialization).eval()
    images = torch.randn(2, 3, 48, 64)
    maps = token_responses(backbone, images, (1, 2), [0, 1, 2])
    assert {i: tuple(map_.shape) for i, map_ in maps.items()} == dict.fromkeys(range(3), (2, 3, 4))
    assert backbone.out_type == 'registers'
    # The first block sees the tokens themselves, in a known order, 3 registers among them.
    seen = []
    hook = backbone.encoder.blocks[0].attn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        backbone(images)
    hook.remove()
    _, places, _ = register_order(12, 3)
    places = places.view(3, 4) if serialization == 'row' else places.view(4, 3).T
    with torch.no_grad():
        weights = backbone.encoder.blocks[0].attn.response(seen[0], int(places[1, 2]))
    torch.testing.assert_close(maps[0], weights[:, places])
    assert (maps[0].sum((1, 2)) < 1).all()  # The registers have the rest.
    assert not backbone.encoder._forward_hooks


def test_blocks_and_tokens_that_do_not_exist_are_named(build_backbone):
    backbone = build_backbone('MT').eval()
    images = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match='block 2 does not exist: the backbone has 2 blocks'):
        token_responses(backbone, images, (0, 0), [2])
    with pytest.raises(ValueError, match=r'token \(row 0, column 4\) is not in the grid of 4 x 4'):
        token_responses(backbone, images, (0, 4), [0])
    with pytest.raises(ValueError, match=r'token \(row -1, column 0\)'):
        effective_receptive_field(backbone, images, (-1, 0))


def test_blocks_without_such_responses_are_named(build_backbone):
    images = torch.randn(1, 3, 64, 64)
    early = build_backbone('MTM', out_indices=1).eval()
    assert list(token_responses(early, images, (0, 0), [0, 1])) == [0, 1]
    with pytest.raises(ValueError, match=r'block 2 lies behind the last of out_indices=\(1,\)'):
        token_responses(early, images, (0, 0), [2])
    windowed = build_backbone('TTTTT', out_type='featmap', window_size=2).eval()
    assert list(token_responses(windowed, images, (0, 0), [1])) == [1]
    with pytest.raises(ValueError, match='block 0 attends within windows'):
        token_responses(windowed, images, (0, 0), [0])
