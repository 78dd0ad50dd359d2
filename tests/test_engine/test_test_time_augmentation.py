"""Views of test-time augmentation, made from the pipeline of a test."""

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmmap.engine.evaluation_options import enable_tta
from mmmap.engine.test_time_augmentation import derived_pipeline, mirrors
from mmmap.utils.errors import UserError

LOAD = dict(type='LoadImageFromFile')
PACK = dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape'))
FLIP = dict(type='RandomFlip', prob=0.5)


def views(pipeline, ratios=(0.5, 1.0), mirrored=False):
    load, augment = derived_pipeline(pipeline, ratios, mirrored, 'test_pipeline')
    assert load == LOAD and augment['type'] == 'TestTimeAug'
    (found,) = augment['transforms']
    assert all(view['type'] == 'Compose' for view in found)
    return [view['transforms'] for view in found]


def test_sizes_are_shares_of_those_of_the_test():
    resize = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
    pipeline = [LOAD, resize, dict(type='Pad', size=(1344, 800)), dict(type='LoadAnnotations'), PACK]
    whole, half = views(pipeline)
    assert [step['type'] for step in whole] == ['Resize', 'RandomFlip', 'Pad', 'LoadAnnotations', 'PackDetInputs']
    # The view that is the test itself comes first: it has the ground truth.
    assert whole[0] == resize and whole[2]['size'] == (1344, 800)
    assert half[0] == resize | dict(scale=(666, 400)) and half[2]['size'] == (672, 416)
    assert whole[-1]['meta_keys'] == ('img_id', 'ori_shape', 'flip', 'flip_direction')
    assert resize['scale'] == (1333, 800) and 'flip' not in PACK['meta_keys']


@pytest.mark.parametrize(
    ('step', 'half'),
    [
        (dict(type='mmdet.Resize', scale=600), dict(scale=300)),
        (dict(type='Resize', scale_factor=2.0), dict(scale_factor=1.0)),
        (dict(type='Resize', scale_factor=(2.0, 1.0)), dict(scale_factor=(1.0, 0.5))),
        (dict(type='ResizeShortestEdge', scale=512, max_size=2048), dict(scale=256, max_size=1024)),
        (dict(type='Resize', scale=(-1, 512)), dict(scale=(-1, 256))),
        (dict(type='Resize', scale=(float('inf'), 512)), dict(scale=(float('inf'), 256))),
    ],
)
def test_every_way_to_resize(step, half):
    assert views([LOAD, step, PACK])[1][0] == step | half


def test_without_resizing_sizes_are_shares_of_the_file():
    pipeline = [LOAD, dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    assert [view[0] for view in views(pipeline)] == [
        dict(type='Resize', scale_factor=factor, keep_ratio=True) for factor in (1.0, 0.5)
    ]


def test_mirrored_views():
    chances = [view[1]['prob'] for view in views([LOAD, dict(type='Resize', scale=8), PACK], mirrored=True)]
    assert chances == [0.0, 1.0] * 2


@pytest.mark.parametrize('step', [dict(type='CenterCrop', crop_size=8), dict(type='RandomChoice', transforms=[])])
def test_what_has_no_views_is_named(step):
    with pytest.raises(UserError, match=f'--tta: test_pipeline has a {step["type"]}.*write tta_pipeline'):
        views([LOAD, step, PACK])


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        (FLIP, True),
        (dict(type='mmdet.RandomFlip', prob=0.0), False),
        (dict(type='RandomFlip', prob=0.5, direction='vertical'), False),
        (dict(type='RandomFlip', prob=[0.3, 0.3], direction=['vertical', 'horizontal']), True),
        (dict(type='RandomChoice', transforms=[[dict(type='Resize')], [FLIP]]), True),
        (dict(type='Resize'), False),
    ],
)
def test_whether_a_training_mirrors(step, expected):
    assert mirrors(dict(dataset=dict(pipeline=[LOAD, step]))) is expected


@pytest.fixture
def dense():
    """A function that makes the config of a segmentor or detector, whose file need not be there."""
    pytest.importorskip('mmdet.models')

    def make(size=(256, 256), **more):
        pipeline = [LOAD, dict(type='Resize', scale=size), PACK]
        return Config(
            dict(
                model=dict(type='mmdet.RetinaNet'),
                train_dataloader=dict(dataset=dict(pipeline=[LOAD, FLIP])),
                test_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=pipeline)),
                **more,
            )
        )

    with DefaultScope.overwrite_default_scope('mmdet'):
        yield make


OTHER_SIZES = [LOAD, dict(type='TestTimeAug', transforms=[[dict(type='Resize', scale=(480, 360))], [FLIP], [PACK]])]


def sizes(cfg):
    found = cfg.test_dataloader.dataset.pipeline[1].transforms[0]
    return [tuple(view.transforms[0].scale) if view.type == 'Compose' else tuple(view.scale) for view in found]


def test_a_detector_needs_no_settings(dense):
    cfg = dense()
    (line,) = enable_tta(cfg)
    assert line == '--tta: each image at 0.75, 1, 1.25 of its size in a test, each mirrored as well.'
    assert sizes(cfg) == [(256, 256)] * 2 + [(192, 192)] * 2 + [(320, 320)] * 2
    assert cfg.model.type == 'InstanceTTAModel' and cfg.model.module.type == 'mmdet.RetinaNet'


def test_training_that_does_not_mirror(dense):
    cfg = dense(tta_ratios=(1.0,))
    cfg.train_dataloader.dataset.pipeline = [LOAD]
    assert 'none mirrored, as the training mirrors none' in enable_tta(cfg)[0]
    assert sizes(cfg) == [(256, 256)]


def test_sizes_of_other_data_are_inherited_only_with_a_line(dense, tmp_path):
    (tmp_path / 'base.py').write_text(f'tta_pipeline = {OTHER_SIZES!r}')
    child = tmp_path / 'child.py'
    child.write_text("_base_ = './base.py'\ntta_ratios = (1.0,)\n")
    cfg = dense()
    inherited = Config.fromfile(child)
    inherited.merge_from_dict(cfg._cfg_dict.to_dict())
    lines = enable_tta(inherited)
    assert (
        lines[0]
        == '--tta: tta_pipeline resizes to (480, 360), the test to (256, 256): it was inherited and is not used'
    )
    assert sizes(inherited) == [(256, 256)] * 2

    # Of one's own, it is obeyed.
    child.write_text(f'tta_pipeline = {OTHER_SIZES!r}')
    own = Config.fromfile(child)
    own.merge_from_dict(cfg._cfg_dict.to_dict())
    (line,) = enable_tta(own)
    assert 'the test to (256, 256): are these the sizes of the images at hand?' in line
    assert sizes(own) == [(480, 360)]


def test_a_pipeline_with_the_size_of_the_test_is_used(dense):
    cfg = dense(size=(480, 360), tta_pipeline=OTHER_SIZES)
    cfg.train_dataloader.dataset.pipeline = [LOAD]
    assert enable_tta(cfg) == ['--tta: tta_pipeline mirrors images, the training does not']
    assert cfg.test_dataloader.dataset.pipeline == cfg.tta_pipeline
