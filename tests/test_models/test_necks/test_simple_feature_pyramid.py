"""SimpleFeaturePyramid: its maps, what it refuses, and segmentors and detectors that use it."""

import math

import pytest
import torch
from mmengine.registry import MODELS as ROOT_MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmap.models.necks import SimpleFeaturePyramid
from mmmap.registry import MODELS

SCALES = (4, 2, 1, 0.5)


def maps(number: int = 1, shape: tuple[int, ...] = (2, 16, 6, 4)) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(shape) for _ in range(number))


@pytest.mark.parametrize('number', [1, 4])
@pytest.mark.parametrize('size', [(6, 4), (5, 7), (1, 1), (1, 9), (32, 3)], ids=str)
def test_shapes(size, number):
    neck = SimpleFeaturePyramid(in_channels=16, out_channels=12, with_max_pool=True)
    outs = neck(maps(number, (2, 16, *size)))
    assert isinstance(outs, tuple)
    sizes = [tuple(-int(-n * s // 1) for n in size) for s in SCALES]
    sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
    assert [out.shape for out in outs] == [(2, 12, *expected) for expected in sizes]


@pytest.mark.parametrize('size', [(8, 16), (9, 17), (1, 23)], ids=str)
@pytest.mark.parametrize('scales', [(4, 2, 1, 0.5, 0.25), (2, 1, 0.5, 0.25, 0.125)], ids=str)
def test_small_levels_cover_the_map(scales, size):
    neck = SimpleFeaturePyramid(in_channels=16, out_channels=8, scales=scales)
    (x,) = maps(shape=(2, 16, *size))
    outs = neck((x,))
    assert [tuple(out.shape[2:]) for out in outs] == [tuple(math.ceil(n * s) for n in size) for s in scales]
    # A small level is that of scale 1 after halving, as often as it takes, and it sees the last row and column.
    for level, out, scale in zip(neck.levels, outs, scales, strict=True):
        if scale <= 0.5:
            half = x
            for _ in range(round(math.log2(1 / scale))):
                half = nn.functional.max_pool2d(half, 2, ceil_mode=True)
            assert torch.equal(out, level[1:](half))
    changed = x.clone()
    changed[..., -1, -1] += 10
    assert all(not torch.equal(new, old) for new, old in zip(neck((changed,)), outs, strict=True))


def test_levels_have_the_same_weights_with_and_without_more():
    old = SimpleFeaturePyramid(in_channels=16, out_channels=8).state_dict()
    new = SimpleFeaturePyramid(in_channels=16, out_channels=8, scales=(4, 2, 1, 0.5, 0.25)).state_dict()
    assert list(new)[: len(old)] == list(old)
    assert all(name.startswith('levels.4.') for name in list(new)[len(old) :])


@pytest.mark.parametrize('scales', [(4, 2, 1, 0.5), (1,), (0.5, 4), (2, 2, 1)], ids=str)
def test_each_level_has_its_scale_and_its_map(scales):
    neck = SimpleFeaturePyramid(in_channels=16, out_channels=8, scales=scales)
    xs = maps(len(scales))
    outs = neck(xs)
    assert [tuple(out.shape[2:]) for out in outs] == [(6 * s, 4 * s) for s in scales]
    for level, out, x, from_one in zip(neck.levels, outs, xs, neck(xs[:1]), strict=True):
        assert torch.equal(out, level(x))
        assert torch.equal(from_one, level(xs[0]))


def test_the_layers_are_those_of_the_paper():
    neck = SimpleFeaturePyramid(in_channels=16, out_channels=8)
    shapes = {name: tuple(p.shape) for name, p in neck.named_parameters() if p.ndim == 4}
    assert shapes == {
        'levels.0.0.0.weight': (16, 8, 2, 2), 'levels.0.0.3.weight': (8, 4, 2, 2),
        'levels.0.1.weight': (8, 4, 1, 1), 'levels.0.3.weight': (8, 8, 3, 3),
        'levels.1.0.weight': (16, 8, 2, 2), 'levels.1.1.weight': (8, 8, 1, 1), 'levels.1.3.weight': (8, 8, 3, 3),
        'levels.2.1.weight': (8, 16, 1, 1), 'levels.2.3.weight': (8, 8, 3, 3),
        'levels.3.1.weight': (8, 16, 1, 1), 'levels.3.3.weight': (8, 8, 3, 3),
    }  # fmt: skip
    assert not any(isinstance(module, _BatchNorm) for module in neck.modules())
    assert sum(isinstance(module, nn.LayerNorm) for module in neck.modules()) == 9
    (x,) = maps()
    # The level of scale 0.5, written out.
    conv1, norm1, conv3, norm3 = neck.levels[3][1:]
    y = conv1(nn.functional.max_pool2d(x, 2)).permute(0, 2, 3, 1)
    y = nn.functional.layer_norm(y, (8,), norm1.weight, norm1.bias)
    y = conv3(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    y = nn.functional.layer_norm(y, (8,), norm3.weight, norm3.bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(neck((x,))[3], y)


def test_the_level_by_max_pooling_takes_every_second_cell():
    outs = SimpleFeaturePyramid(in_channels=16, out_channels=8, with_max_pool=True)(maps(shape=(1, 16, 12, 10)))
    assert torch.equal(outs[4], outs[3][..., ::2, ::2])


def test_samples_do_not_depend_on_their_batch_and_gradients_reach_all():
    neck = SimpleFeaturePyramid(in_channels=16, out_channels=8).train()
    (x,) = maps()
    x.requires_grad_()
    outs = neck((x,))
    for out, alone in zip(outs, neck((x[:1],)), strict=True):
        torch.testing.assert_close(out[:1], alone)
    sum(out.square().mul(torch.randn_like(out)).sum() for out in outs).backward()
    for name, parameter in (('inputs', x), *neck.named_parameters()):
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_bfloat16_autocast():
    neck = SimpleFeaturePyramid(in_channels=16, out_channels=8, with_max_pool=True)
    with torch.autocast('cpu', torch.bfloat16):
        outs = neck(maps())
    assert all(out.isfinite().all() for out in outs)
    sum(out.float().square().sum() for out in outs).backward()


@pytest.mark.parametrize(
    ('arguments', 'culprit'),
    [
        (dict(in_channels=[16] * 4), r'in_channels=\[16, 16, 16, 16\]'),
        (dict(in_channels=0), 'in_channels=0'),
        (dict(in_channels=16, out_channels=-1), 'out_channels=-1'),
        (dict(in_channels=18), 'in_channels=18: must be a multiple of 4'),
        (dict(in_channels=15, scales=(2, 1)), 'in_channels=15: must be a multiple of 2'),
        (dict(in_channels=16, scales=()), r'scales=\(\)'),
        (dict(in_channels=16, scales=(8, 1)), r'scales=\(8, 1\): must be some of \(4, 2, 1, 0.5, 0.25, 0.125\)'),
        (dict(in_channels=16, scales=(1, 0.0625)), r'scales=\(1, 0.0625\)'),
    ],
)
def test_wrong_arguments_are_named(arguments, culprit):
    with pytest.raises(ValueError, match=culprit) as raised:
        ROOT_MODELS.build(dict(type='SimpleFeaturePyramid', **arguments))
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    ('inputs', 'error', 'culprit'),
    [
        (maps()[0], TypeError, 'a tuple of maps.*not a Tensor'),
        (maps(2), ValueError, r'got 2 maps for scales=\(4, 2, 1, 0.5\)'),
        ((), ValueError, 'got 0 maps'),
        (maps(shape=(2, 8, 4, 4)), ValueError, r'\(2, 8, 4, 4\).*\(B, 16, H, W\)'),
        (maps(shape=(2, 3, 16)), ValueError, r"\(2, 3, 16\).*out_type='featmap'"),
    ],
)
def test_wrong_inputs_are_named(inputs, error, culprit):
    with pytest.raises(error, match=culprit) as raised:
        SimpleFeaturePyramid(in_channels=16)(inputs)
    assert '\n' not in str(raised.value)


# In segmentors and detectors


def take_a_step(model: nn.Module, data: dict) -> dict[str, torch.Tensor]:
    """Losses of a batch; every parameter that requires a gradient gets one."""
    model.train()
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    total, logged = model.parse_losses(losses)
    total.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), name
    return logged


@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('out_indices', [-1, (0, 1, 2, 3), (2,)], ids=str)
def test_a_segmentor(segmentor_cfg, out_indices, batch):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    model = MODELS.build(segmentor_cfg(backbone=dict(out_indices=out_indices)))
    images, samples = [], []
    for height, width in ((64, 90), (41, 96))[:batch]:
        images.append(torch.randint(256, (3, height, width), dtype=torch.uint8))
        labels = PixelData(data=torch.randint(3, (1, height, width)))
        meta = dict(img_shape=(height, width), ori_shape=(height, width))
        samples.append(SegDataSample(gt_sem_seg=labels, metainfo=meta))
    losses = take_a_step(model, dict(inputs=images, data_samples=samples))
    assert losses['loss'].isfinite() and 'aux.loss_ce' in losses
    model.eval()
    for image, sample in zip(images, samples, strict=True):
        # A size of its own, padded for the patches and cut back.
        data = model.data_preprocessor(dict(inputs=[image], data_samples=[sample]))
        (result,) = model(**data, mode='predict')
        assert result.pred_sem_seg.shape == image.shape[1:]


@pytest.mark.parametrize('out_indices', [-1, (0, 1, 2, 3)], ids=str)
def test_a_detector(detector_cfg, out_indices):
    from mmdet.testing import demo_mm_inputs

    model = MODELS.build(detector_cfg(backbone=dict(out_indices=out_indices)))
    shapes = [(3, 90, 128), (3, 120, 77)]
    data = demo_mm_inputs(2, shapes, num_items=[2, 3], num_classes=3, with_mask=True)
    losses = take_a_step(model, data)
    assert losses['loss'].isfinite() and 'loss_mask' in losses
    inputs = model.data_preprocessor(data)
    assert inputs['inputs'].shape == (2, 3, 128, 128)
    features = model.extract_feat(inputs['inputs'])
    assert [tuple(x.shape[2:]) for x in features] == [(n, n) for n in (32, 16, 8, 4, 2)]
    model.eval()
    for result, shape in zip(model(**inputs, mode='predict'), shapes, strict=True):
        assert result.pred_instances.masks.shape[1:] == shape[1:]
