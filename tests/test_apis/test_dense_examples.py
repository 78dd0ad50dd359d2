"""Batches for detectors and segmentors."""

import pytest
from mmengine.config import Config

from mmmap.analysis import count_complexity
from mmmap.apis import build_model, example_batches, is_detector, is_segmentor
from mmmap.utils.errors import UserError


def config_of(model, scope, **more):
    return Config(dict(default_scope=scope, model=model, **more))


def test_a_detector_gives_as_many_detections_as_it_keeps(detector_cfg):
    figures = []
    for number in (5, 10):
        model_cfg = detector_cfg()
        model_cfg['test_cfg']['rcnn']['max_per_img'] = number
        cfg = config_of(model_cfg, 'mmdet')
        model = build_model(cfg)
        assert is_detector(model) and not is_segmentor(model)
        example = example_batches(cfg, model, 2)['']
        assert str(example) == f'2 x 64 x 64 pixels with {number} detections each'
        assert [len(sample.pred_instances) for sample in model.eval()(example.inputs, example.samples, 'predict')] == (
            [number] * 2
        )
        figures.append(count_complexity(model, example.inputs, example.samples, example.mode)['head'].flops)
    # Each detection costs the mask head its share, and nothing else.
    per_object = (figures[1] - figures[0]) / 10
    assert per_object > 2 * 14 * 14 * 8 * 8 * 9


@pytest.mark.parametrize('with_mask', [False, True])
def test_labels_are_those_that_the_training_loads(detector_cfg, with_mask):
    pipeline = [dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask)]
    cfg = config_of(detector_cfg(), 'mmdet', train_dataloader=dict(dataset=dict(pipeline=pipeline)))
    model = build_model(cfg)
    (sample,) = example_batches(cfg, model, 1, train=True)[''].samples
    assert ('masks' in sample.gt_instances) is with_mask and 'gt_sem_seg' not in sample


def test_building_leaves_the_config_as_it_is(detector_cfg):
    cfg = config_of(detector_cfg(), 'mmdet')
    before = cfg.pretty_text
    build_model(cfg), build_model(cfg)
    assert cfg.pretty_text == before


def test_what_takes_proposals_is_refused(detector_cfg):
    model_cfg = detector_cfg()
    del model_cfg['rpn_head'], model_cfg['test_cfg']['rpn'], model_cfg['train_cfg']['rpn']
    cfg = config_of(model_cfg | dict(type='mmdet.FastRCNN'), 'mmdet')
    with pytest.raises(UserError, match='FastRCNN takes proposals from files'):
        example_batches(cfg, build_model(cfg), 1)


def test_segmentors(segmentor_cfg):
    cfg = config_of(segmentor_cfg(), 'mmseg')
    model = build_model(cfg)
    assert is_segmentor(model) and not is_detector(model)
    example = example_batches(cfg, model, 2)['']
    assert example.mode == 'tensor' and example.objects is None
    assert example.samples[0].gt_sem_seg.data.max() == 2
