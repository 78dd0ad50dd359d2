"""The parts of a model take their shapes from the backbone, and what a config says otherwise is refused."""

import pytest
import torch
from mmpretrain.models import ImageClassifier
from torch import nn

from mmmap.models.build_parts import build_parts
from mmmap.registry import MODELS

ARCH = dict(embed_dim=32, layout='MMMT', num_heads=4, num_registers=3, d_state=4)
IMAGES = dict(type='MAPHybrid', arch=ARCH, img_size=(16, 32), patch_size=8, in_channels=2)
CLOUD_ARCH = {key: value for key, value in ARCH.items() if key != 'num_registers'}
CLOUDS = dict(type='PointMAPHybrid', arch=CLOUD_ARCH, num_groups=16, group_size=8, in_channels=5)


def classifier(backbone: dict, head: dict | None = None, **changes) -> nn.Module:
    # As a Runner builds it.
    linear = dict(type='LinearClsHead', num_classes=3) | (head or {})
    cfg = dict(type='HybridClassifier', backbone=backbone, head=linear) | changes
    return MODELS.build({'_scope_': 'mmpretrain', **cfg})


def test_a_decoder_and_a_head_follow_the_backbone():
    backbone, neck, head = build_parts(
        IMAGES | dict(out_type='raw'), neck=dict(type='RegionCausalDecoder'), head=dict(type='PixelReconstructionHead')
    )
    assert neck.embed.in_features == backbone.embed_dim == 32
    assert neck.pos_embed.weight.shape == (1, 2, 4, 192)
    assert (head.proj.in_features, head.patch_size, head.in_channels) == (192, 8, 2)


def test_a_segmentor_of_clouds_follows_the_backbone():
    backbone = CLOUDS | dict(out_type='points', out_indices=(1, 3))
    neck = dict(type='FeaturePropagation', out_channels=24)
    model = MODELS.build(
        dict(type='PointSegmentor', backbone=backbone, neck=neck, head=dict(type='PointSegHead', num_classes=4))
    )
    assert (model.neck.in_channels, model.neck.point_channels, len(model.neck.taps)) == (32, 5, 2)
    assert model.head.in_channels == 24
    assert model(torch.rand(2, 60, 5)).shape == (2, 60, 4)


@pytest.mark.parametrize('reduction', [1, 4])
def test_a_classifier_of_registers_follows_the_backbone(reduction):
    model = classifier(IMAGES, neck=dict(type='RegisterNeck', reduction=reduction))
    assert isinstance(model, ImageClassifier)
    assert (model.neck.in_dim, model.neck.num_registers) == (32, 3)
    assert model.head.in_channels == 3 * 32 // reduction
    assert model(torch.rand(2, 2, 16, 32), mode='tensor').shape == (2, 3)


def test_a_linear_probe_follows_the_backbone():
    backbone = IMAGES | dict(out_type='avg_featmap', frozen_stages='all')
    model = classifier(backbone, neck=dict(type='ClsBatchNormNeck'))
    assert (model.neck.bn.num_features, model.head.in_channels) == (32, 32)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if not name.startswith('backbone.')}


@pytest.mark.parametrize('out_type', ['max_mean', 'cls_max_mean'])
def test_a_classifier_of_clouds_gets_maximum_and_mean(out_type):
    assert classifier(CLOUDS | dict(out_type=out_type)).head.in_channels == 64


def test_values_of_a_config_must_be_those_of_the_parts_before():
    same = dict(type='RegionCausalDecoder', in_dim=32, grid=[2, 4])
    assert build_parts(IMAGES | dict(out_type='raw'), neck=same)[1].embed.in_features == 32
    square = dict(IMAGES, img_size=16, out_type='raw')
    assert build_parts(square, neck=dict(type='RegionCausalDecoder', grid=2))[1].pos_embed.weight.shape[1:3] == (2, 2)
    with pytest.raises(ValueError, match=r'^neck\.grid=4, but backbone has grid=\(2, 4\): leave neck\.grid out$'):
        build_parts(IMAGES | dict(out_type='raw'), neck=dict(type='RegionCausalDecoder', grid=4))
    with pytest.raises(ValueError, match=r'^head\.in_channels=16, but backbone has width=32: leave'):
        classifier(IMAGES | dict(out_type='avg_featmap'), dict(in_channels=16))
    with pytest.raises(ValueError, match=r'^head\.in_channels=32, but neck has width=96: leave'):
        classifier(IMAGES, dict(in_channels=32), neck=dict(type='RegisterNeck'))


def test_the_config_is_left_as_it_is():
    neck = dict(type='RegionCausalDecoder')
    build_parts(IMAGES | dict(out_type='raw'), neck=neck)
    assert neck == dict(type='RegionCausalDecoder')


def test_an_unknown_part_is_named():
    with pytest.raises(KeyError, match='NoSuchDecoder'):
        build_parts(IMAGES, neck=dict(type='NoSuchDecoder'))
