"""MAPHybrid as segmentors and detectors use it: maps of any size, early taps, windows, padding."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger

from mmmap.models.backbones import MAPHybrid
from mmmap.models.layers import GridSerialization, register_order

# Height and width in pixels, for patches of 8.
SIZES = [(40, 40), (40, 56), (72, 40), (8, 8), (8, 104), (112, 8), (64, 48), (88, 72), (24, 136), (56, 56), (16, 40)]
SIZES.append((120, 32))
SERIALIZATIONS = ['row', 'column', 'token', dict(type='block', size=2), dict(type='block', size=(3, 2))]


def build(layout: str = 'MMMT', **changes) -> MAPHybrid:
    arch = dict(embed_dim=16, layout=layout, num_heads=2, num_registers=3, d_state=2)
    return MAPHybrid(**(dict(arch=arch, img_size=40, patch_size=8, out_type='featmap') | changes))


@pytest.mark.parametrize('out_indices', [-1, (0, 1, 2, 3), (1,), (2, 0), (3, 3)], ids=str)
@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('size', SIZES, ids=lambda size: f'{size[0]}x{size[1]}')
def test_shapes(size, batch, out_indices):
    outs = build(out_indices=out_indices).eval()(torch.randn(batch, 3, *size))
    assert len(outs) == (1 if out_indices == -1 else len(out_indices))
    for out in outs:
        assert out.shape == (batch, 16, size[0] // 8, size[1] // 8)
        assert out.isfinite().all() and out.is_contiguous()


@pytest.mark.parametrize('window_size', [0, 3])
@pytest.mark.parametrize('size', SIZES, ids=lambda size: f'{size[0]}x{size[1]}')
def test_large_patches_of_large_images(size, window_size):
    """12 times the sizes above, up to 1632 pixels, in as many patches."""
    pixels = tuple(12 * n for n in size)
    model = build('MT' * 5, patch_size=96, img_size=480, window_size=window_size)
    (out,) = model.eval()(torch.randn(1, 3, *pixels))
    assert out.shape == (1, 16, size[0] // 8, size[1] // 8)


@pytest.mark.parametrize('registers', [0, 3, 40])
@pytest.mark.parametrize('serialization', SERIALIZATIONS, ids=str)
@pytest.mark.parametrize('size', [(40, 40), (40, 56), (72, 16)], ids=str)
def test_a_map_is_the_tokens_in_another_order(size, serialization, registers):
    raw = build(out_type='raw', out_indices=(1, 3), serialization=serialization, num_registers=registers).eval()
    model = build(out_indices=(1, 3), serialization=serialization, num_registers=registers).eval()
    model.load_state_dict(raw.state_dict())
    images = torch.randn(2, 3, *size)
    rows, columns = grid = size[0] // 8, size[1] // 8
    order = GridSerialization(serialization).order(grid)
    reading = list(range(rows * columns)) if order is None else order.tolist()
    places = register_order(rows * columns, registers)[1].tolist()
    for sequence, out in zip(raw(images), model(images), strict=True):
        assert sequence.shape[1] == rows * columns + registers
        for place, patch in zip(places, reading, strict=True):
            assert torch.equal(out[:, :, patch // columns, patch % columns], sequence[:, place])


# Taps that leave blocks out


def tap_early(**changes) -> MAPHybrid:
    return build('MMMTMTT', out_indices=(1, 3), **changes)


def test_a_tap_is_what_a_backbone_of_the_blocks_up_to_there_gives():
    model, short = tap_early().eval(), build('MMMT').eval()
    short.load_state_dict({k: v for k, v in model.state_dict().items() if k in short.state_dict()})
    images = torch.randn(2, 3, 40, 56)
    assert torch.equal(model(images)[-1], short(images)[0])


@pytest.mark.parametrize('registers', [0, 3])
@pytest.mark.parametrize('frozen_stages', [-1, 0, 2])
@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('layout', ['MMMTMTT', 'TTMMTTM', 'MMTTMTM'])
def test_what_needs_a_gradient_gets_one(layout, with_cp, frozen_stages, registers):
    model = build(
        layout, out_indices=(1, 3), num_registers=registers, frozen_stages=frozen_stages, with_cp=with_cp
    ).train()
    computed = []
    for i, block in enumerate(model.encoder.blocks):
        block.register_forward_pre_hook(lambda *_, i=i: computed.append(i))
    outs = model(torch.randn(2, 3, 40, 24))
    assert computed == [0, 1, 2, 3]
    sum(out.sum() for out in outs).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), name
    unused = [name for name, p in model.encoder.blocks[4:].named_parameters() if p.requires_grad]
    assert not unused and all(p.requires_grad for p in model.encoder.blocks[3].parameters())


def test_blocks_left_out_are_logged_and_keep_their_weights(monkeypatch):
    logger, records = MMLogger.get_current_instance(), []
    monkeypatch.setattr(logger, 'handle', records.append)
    monkeypatch.setattr(logger, 'level', logging.INFO)
    whole = build('MMMTMTT')
    assert not records
    model = tap_early()
    assert ['out_indices=(1, 3) leaves out blocks 4 to 6' in r.getMessage() for r in records] == [True]
    model.load_state_dict(whole.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))
    # A pretraining method still encodes with all blocks.
    assert torch.equal(model.eval().encoder(torch.ones(1, 4, 16)), whole.eval().encoder(torch.ones(1, 4, 16)))


# Padding


def test_images_change_with_their_own_padding_but_not_with_their_neighbours():
    model = build('MMMT').eval()
    small, large = torch.randn(1, 3, 40, 40), torch.randn(1, 3, 56, 72)
    padded = torch.nn.functional.pad(small, (0, 32, 0, 16))
    (alone,), (batch,) = model(padded), model(torch.cat([padded, large]))
    torch.testing.assert_close(batch[:1], alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(batch[1:], model(large)[0], rtol=0, atol=1e-5)
    # Nothing masks the padding: that the image lies in a larger one shows, in other positions and in what is mixed.
    assert (model(small)[0] - alone[..., :5, :5]).abs().max() > 1e-2


@pytest.mark.parametrize('size', [(41, 40), (40, 47), (800, 1333)], ids=str)
def test_a_size_that_the_patch_does_not_divide_is_an_error(size):
    with pytest.raises(ValueError, match=f'{size[0]}x{size[1]}.*patch_size=8.*pad_size_divisor=8.*size_divisor'):
        build()(torch.randn(1, 3, *size))


# Windows


def windowed_pair(**changes) -> tuple[MAPHybrid, MAPHybrid]:
    """The same weights without windows and with windows of 4 patches."""
    whole, model = (build('MMMT' * 5, window_size=size, **changes) for size in (0, 4))
    model.load_state_dict(whole.state_dict())
    return whole.eval(), model.eval()


@pytest.mark.parametrize('serialization', SERIALIZATIONS, ids=str)
def test_a_grid_no_larger_than_a_window_is_global(serialization):
    whole, model = windowed_pair(serialization=serialization)
    for size in ((32, 32), (32, 16), (8, 24)):
        images = torch.randn(2, 3, *size)
        assert torch.equal(whole(images)[0], model(images)[0])
    images = torch.randn(2, 3, 40, 32)
    assert not torch.allclose(whole(images)[0], model(images)[0], atol=1e-3)


def test_no_token_looks_out_of_its_window():
    # A single block that attends within windows, and four global ones that are made to pass tokens through.
    model = build('TTTTT', window_size=4).eval()
    assert model.encoder.windowed_blocks == {0}
    for block in model.encoder.blocks[1:]:
        torch.nn.init.zeros_(block.attn.proj.weight)
    images = torch.randn(1, 3, 72, 48)
    changed = images.clone()
    changed[..., 33:39, 9:15] += 1  # The patch in row 4, column 1: the second window of the first column.
    moved = (model(images)[0] - model(changed)[0]).abs().sum(1)[0] > 1e-6
    expected = torch.zeros(9, 6, dtype=torch.bool)
    expected[4:8, :4] = True
    assert torch.equal(moved, expected)


@pytest.mark.parametrize('frozen_stages', [-1, 3])
@pytest.mark.parametrize('serialization', ['row', 'column'])
def test_windows_with_checkpointing_and_frozen_stages(serialization, frozen_stages):
    images, gradients = torch.randn(2, 3, 56, 40), []
    model = build(
        'MMMT' * 5, window_size=3, serialization=serialization, frozen_stages=frozen_stages, drop_path_rate=0.2,
        out_indices=(3, 19),
    ).train()  # fmt: skip
    trained = [p for p in model.parameters() if p.requires_grad]
    for with_cp in (False, True):
        model.encoder.with_cp = with_cp
        torch.manual_seed(1)
        gradients.append(torch.autograd.grad(sum(out.square().sum() for out in model(images)), trained))
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ('changes', 'culprit'),
    [
        (dict(window_size=-1), 'window_size=-1'),
        (dict(window_size=14.0), r'window_size=14\.0'),
        (dict(window_size=4, num_registers=3), 'window_size=4: 3 registers'),
        (dict(window_size=4, out_type='registers'), 'window_size=4: 3 registers'),
        (dict(window_size=4), "window_size=4: would change nothing.*'MMMT'"),
    ],
)
def test_windows_that_do_not_fit_are_named(changes, culprit):
    with pytest.raises(ValueError, match=culprit) as raised:
        build(**changes)
    assert '\n' not in str(raised.value)
