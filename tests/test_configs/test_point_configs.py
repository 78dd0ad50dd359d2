"""The models of the configs of clouds: a step of training, a prediction, and where they start from."""

import pytest
import torch
from config_cases import POINTS, backbone_of, config_of, read, starting_point
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.structures import DataSample

from mmmap.models.backbones.point_map_hybrid import POINT_ARCHS
from mmmap.registry import MODELS
from mmmap.structures import PointDataSample

EVERY = pytest.mark.parametrize('cfg', POINTS, ids=lambda path: path.stem, indirect=True)


def shrink(cfg):
    """The same model with the last four of its blocks, fewer groups, and fewer points at once."""
    backbone = backbone_of(cfg)
    arch = dict(POINT_ARCHS[backbone.arch]) if isinstance(backbone.arch, str) else backbone.arch.to_dict()
    if 'out_indices' in backbone:
        # At the same shares of the depth.
        backbone.out_indices = [(index + 1) * 4 // len(arch['layout']) - 1 for index in backbone.out_indices]
    arch.pop('_delete_', None)
    arch['layout'] = arch['layout'][-4:]
    backbone.arch = arch
    backbone.update(num_groups=16, init_cfg=None)
    if cfg.model.type == 'SceneSegmentor':
        cfg.model.test_cfg.update(num_points=256, voxel_size=None)
    return cfg


def samples_of(cfg, count, points):
    samples = []
    for i in range(count):
        if cfg.model.type in ('HybridClassifier', 'MAP'):
            samples.append(DataSample().set_gt_label(i % cfg.model.head.get('num_classes', 1)))
            continue
        sample = PointDataSample(metainfo=dict(category=i % cfg.get('num_categories', 1)))
        classes = cfg.model.get('segmentor', cfg.model).head.num_classes
        samples.append(sample.set_gt_pts_seg(torch.randint(classes, (points,))))
    return samples


@EVERY
def test_a_step_of_training_and_a_prediction(cfg):
    cfg = shrink(cfg)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    points = 4 * backbone_of(cfg).get('group_size', 32)
    channels = backbone_of(cfg).get('in_channels', 3)
    clouds = [torch.rand(points, channels) for _ in range(4)]
    samples = samples_of(cfg, 4, points)
    batch = model.data_preprocessor(dict(inputs=clouds, data_samples=samples), training=True)
    losses = model(batch['inputs'], batch['data_samples'], mode='loss')
    loss = sum(value for name, value in losses.items() if 'loss' in name)
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    if cfg.model.type == 'MAP':
        return
    model.eval()
    found = model.test_step(dict(inputs=clouds[:1], data_samples=samples[:1]))[0]
    if cfg.model.type == 'HybridClassifier':
        assert found.pred_score.shape == (cfg.model.head.num_classes,)
    else:
        assert found.pred_pts_seg.pts_semantic_mask.shape == (points,)


@EVERY
def test_weights_of_the_pretraining_fit(cfg):
    checkpoint = starting_point(cfg)
    if checkpoint is None:
        return
    before, now = shrink(read(config_of(checkpoint))), shrink(cfg)
    weights = MODELS.build(before.model).backbone.state_dict()
    backbone = MODELS.build(backbone_of(now))
    own = backbone.state_dict()
    assert {name for name in own if name not in weights} == set()
    assert all(own[name].shape == weights[name].shape for name in own)
    load_state_dict(backbone, weights, strict=True)
