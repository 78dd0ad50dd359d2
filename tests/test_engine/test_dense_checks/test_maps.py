"""Maps that are not those of the heads end a run; all that fit are let through, and the model is left as it was."""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from dense_data import detection_config, refusal, write_coco
from mmengine.config import Config
from mmengine.registry import init_default_scope

pytest.importorskip('mmcv._ext')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

import mmdet
import mmseg

from mmmap.engine.dense_checks.maps import check_maps
from mmmap.registry import MODELS
from mmmap.utils.errors import UserError

OURS = dict(type='MAPHybrid', arch=dict(embed_dim=32, layout='MMMT', num_heads=2), out_type='featmap')
RETINANET = 'retinanet/retinanet_r50_fpn_1x_coco'


def config(name, package=mmdet, **model):
    """A config of a package; a backbone or neck given in place of its own."""
    cfg = Config.fromfile(Path(package.__file__).parent / f'.mim/configs/{name}.py')
    inner = cfg.model.get('detector', cfg.model)
    for key, value in model.items():
        inner[key] = value
    return cfg


def pyramid(**options):
    return dict(type='SimpleFeaturePyramid', in_channels=32) | options


def check(cfg, device='meta'):
    def without_checkpoints(part):
        for value in part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ():
            without_checkpoints(value)
        if isinstance(part, dict):
            part.update({key: None for key in ('init_cfg', 'pretrained') if key in part})

    cfg = deepcopy(cfg)
    without_checkpoints(cfg.model)
    init_default_scope(cfg.default_scope)
    with torch.device(device):
        model = MODELS.build(cfg.model)
    check_maps(SimpleNamespace(model=model, cfg=cfg))
    return model


def fault(cfg):
    with pytest.raises(UserError) as raised:
        check(cfg)
    assert '\n' not in str(raised.value)
    return str(raised.value)


# The other kinds of heads are tried with --run-slow.
QUICK = ['dino/dino-4scale_r50', 'rtmdet/rtmdet_tiny', 'ssd/ssd300', 'yolact/yolact_r50', 'yolof/yolof_r50']
SLOW = [
    'atss/atss_r50',
    'boxinst/boxinst_r50',
    'cascade_rpn/cascade-rpn_faster',
    'condinst/condinst_r50',
    'conditional_detr/conditional-detr_r50',
    'ddod/ddod_r50',
    'deformable_detr/deformable-detr_r50',
    'detr/detr_r50',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x',
    'foveabox/fovea_r50',
    'free_anchor/freeanchor_r50',
    'gfl/gfl_r50',
    'guided_anchoring/ga-faster-rcnn_r50',
    'htc/htc_r50',
    'mask2former/mask2former_r50',
    'maskformer/maskformer_r50',
    'paa/paa_r50',
    'panoptic_fpn/panoptic-fpn_r50',
    'pascal_voc/faster-rcnn_r50-caffe-c4',
    'point_rend/point-rend_r50',
    'queryinst/queryinst_r50',
    'reppoints/reppoints-moment_r50',
    'rtmdet/rtmdet-ins_tiny',
    'scnet/scnet_r50',
    'solo/decoupled-solo_r50',
    'solov2/solov2_r50',
    'sparse_rcnn/sparse-rcnn_r50',
    'tood/tood_r50',
    'tridentnet/tridentnet_r50',
    'vfnet/vfnet_r50',
    'yolo/yolov3_d53',
    'yolox/yolox_tiny',
]
QUICK_OF_MMSEG = ['icnet/icnet_r50', 'pidnet/pidnet-s']
SLOW_OF_MMSEG = ['bisenetv1/bisenetv1_r18', 'mask2former/mask2former_r50', 'ocrnet/ocrnet_hr18', 'sem_fpn/fpn_r50']


@pytest.mark.parametrize(
    ('package', 'start'),
    [
        pytest.param(package, start, marks=pytest.mark.slow if start in SLOW + SLOW_OF_MMSEG else ())
        for package, starts in ((mmdet, QUICK + SLOW), (mmseg, QUICK_OF_MMSEG + SLOW_OF_MMSEG))
        for start in starts
    ],
)
def test_installed_configs_pass(package, start):
    folder = Path(package.__file__).parent / '.mim/configs'
    found = sorted(folder.glob(f'{start}*.py'))[0]
    check(config(str(found.relative_to(folder).with_suffix('')), package))


@pytest.mark.parametrize(
    ('name', 'key', 'strides'),
    [
        (RETINANET, 'bbox_head.anchor_generator.strides', [8, 16, 32, 64, 128]),
        ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', 'bbox_head.strides', [8, 16, 32, 64, 128]),
        ('atss/atss_r50_fpn_1x_coco', 'bbox_head.anchor_generator.strides', [8, 16, 32, 64, 128]),
        ('yolof/yolof_r50-c5_8xb8-1x_coco', 'bbox_head.anchor_generator.strides', [32]),
        ('rtmdet/rtmdet_tiny_8xb32-300e_coco', 'bbox_head.anchor_generator.strides', [8, 16, 32]),
        ('yolox/yolox_tiny_8xb8-300e_coco', 'bbox_head.strides', [8, 16, 32]),
        ('reppoints/reppoints-moment_r50_fpn_1x_coco', 'bbox_head.point_strides', [8, 16, 32, 64, 128]),
        ('guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco', 'bbox_head.square_anchor_generator.strides', None),
    ],
)
def test_a_pyramid_of_other_strides_is_refused_and_the_cure_holds(name, key, strides):
    cfg = config(name, backbone=OURS, neck=pyramid(with_max_pool=True))
    message = fault(cfg)
    assert message.startswith(f'model.{key}={strides or [8, 16, 32, 64, 128]}, but') and '[4, 8, 16, 32, 64]' in message
    neck = eval(message.rpartition('model.neck=')[2], {'dict': dict})
    assert neck.pop('_delete_')
    check(config(name, backbone=OURS, neck=neck))


def test_maps_of_the_right_number_and_another_stride():
    cfg = config(RETINANET, backbone=OURS, neck=pyramid(scales=(2, 1, 0.5, 0.25, 0.25)))
    assert 'strides [8, 16, 32, 64, 64]' in fault(cfg)
    # Patches of 14 pixels: near the strides of the head, but not those.
    cfg = config(RETINANET, backbone=OURS | dict(patch_size=14), neck=pyramid(scales=(2, 1, 0.5, 0.25, 0.125)))
    assert 'strides [7, 14, 28, 56, 112]' in fault(cfg) and fault(cfg).endswith(
        'set the strides to [7, 14, 28, 56, 112]'
    )
    cfg.model.bbox_head.anchor_generator.strides = [7, 14, 28, 56, 112]
    check(cfg)


def test_a_backbone_without_a_neck():
    assert 'strides [16]' in fault(config(RETINANET, backbone=OURS, neck=None))


def test_soft_teacher_is_checked_by_its_student():
    name = 'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco'
    check(config(name, backbone=OURS, neck=pyramid(with_max_pool=True)))
    message = fault(config(name, backbone=OURS, neck=pyramid(scales=(2, 1, 0.5, 0.25, 0.125))))
    assert message.startswith('model.detector.rpn_head.anchor_generator.strides=[4, 8, 16, 32, 64], but')


def test_roi_extractors_take_the_first_maps_and_no_others():
    name = 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco'
    cfg = config(name, backbone=OURS, neck=pyramid(with_max_pool=True))
    check(cfg)
    cfg.model.roi_head.mask_roi_extractor.featmap_strides = [8, 16, 32]
    assert fault(cfg).startswith('model.roi_head.mask_roi_extractor.featmap_strides=[8, 16, 32], but the maps')


@pytest.mark.parametrize('name', ['solo/solo_r50_fpn_1x_coco', 'solov2/solov2_r50_fpn_1x_coco'])
def test_solo_has_strides_after_its_own_resizing(name):
    check(config(name, backbone=OURS, neck=pyramid(scales=(4, 2, 1, 0.5, 0.25))))
    message = fault(config(name, backbone=OURS, neck=pyramid(scales=(2, 1, 0.5, 0.25, 0.125))))
    assert message.startswith('model.mask_head.strides=[8, 8, 16, 32, 32], for maps of strides [4, 8, 16, 32, 64]')
    assert message.endswith('scales=(4, 2, 1, 0.5, 0.25))')


def test_the_masks_of_condinst_have_the_stride_of_their_map():
    cfg = config('condinst/condinst_r50_fpn_ms-poly-90k_coco_instance', backbone=OURS)
    cfg.model.neck = pyramid(scales=(2, 1, 0.5, 0.25, 0.125))
    check(cfg)
    cfg.model.mask_head.mask_feature_head.start_level = 1
    assert fault(cfg).startswith('model.mask_head.mask_feature_head.mask_stride=8, but it is for map 1')


def test_queries_want_their_number_of_maps():
    message = fault(config('dino/dino-4scale_r50_8xb2-12e_coco', backbone=OURS, neck=pyramid(with_max_pool=True)))
    assert message.startswith('model.num_feature_levels=4, but') and message.endswith('scales=(2, 1, 0.5, 0.25))')
    check(config('dino/dino-4scale_r50_8xb2-12e_coco', backbone=OURS, neck=pyramid(scales=(2, 1, 0.5, 0.25))))
    message = fault(config('mask2former/mask2former_r50_8xb2-lsj-50e_coco', backbone=OURS, neck=None))
    assert message.startswith('model.panoptic_head.in_channels has 4 maps, but the backbone and the neck give 1')
    check(config('detr/detr_r50_8xb2-150e_coco', backbone=OURS, neck=pyramid(scales=(1,))))


def test_the_width_of_a_head():
    cfg = config(RETINANET, backbone=OURS, neck=pyramid(scales=(2, 1, 0.5, 0.25, 0.125), out_channels=64))
    assert fault(cfg).startswith(
        'model.bbox_head.in_channels=256, but the maps of the backbone and the neck have [64, 64'
    )


def test_heads_of_mmseg_and_their_maps():
    name = 'sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024'
    check(config(name, mmseg, backbone=OURS, neck=pyramid()))
    message = fault(config(name, mmseg, backbone=OURS, neck=None))
    assert message.startswith('model.decode_head.in_index=[0, 1, 2, 3], but the backbone and the neck give 1 maps')
    cfg = config(name, mmseg, backbone=OURS, neck=pyramid(out_channels=64))
    assert fault(cfg).startswith('model.decode_head.in_channels=[256, 256, 256, 256], but the maps of in_index')
    fcn = config('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024', mmseg, backbone=OURS, neck=None)
    fcn.model.auxiliary_head.update(in_index=0, in_channels=32)
    assert fault(fcn).startswith('model.decode_head.in_index=3, but')
    fcn.model.decode_head.update(in_index=-1, in_channels=64)
    assert 'in_channels=64, but the maps of in_index=-1 have 32 channels' in fault(fcn)
    fcn.model.decode_head.in_channels = 32
    check(fcn)


@MODELS.register_module()
class ReadingBackbone(torch.nn.Module):
    """A backbone that reads a value, which the meta device does not have, and changes a buffer when it trains."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 32, 16, 16), torch.nn.BatchNorm2d(32), torch.nn.Dropout(0.5)
        )

    def forward(self, x):
        y = self.layers(x)
        return (y + y.sum().item() * torch.rand_like(y),)


@pytest.mark.parametrize('backbone', [OURS, dict(type='ReadingBackbone')], ids=['meta', 'copy'])
def test_the_model_and_the_random_state_are_as_before(backbone):
    cfg = config(RETINANET, backbone=backbone, neck=pyramid(scales=(2, 1, 0.5, 0.25, 0.125)))
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model).train()
    model.neck.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    check_maps(SimpleNamespace(model=model, cfg=cfg))
    assert [m.training for m in model.modules()] == modes and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.backbone._forward_hooks
    cfg.model.bbox_head.anchor_generator.strides = [4, 8, 16, 32, 64]
    with pytest.raises(UserError, match=r'strides \[8, 16, 32, 64, 128\]'):
        check_maps(SimpleNamespace(model=MODELS.build(cfg.model), cfg=cfg))


def test_other_models_are_not_run():
    check_maps(SimpleNamespace(model=MODELS.build(OURS), cfg=Config(dict(model=OURS))))


def test_a_run_ends_before_its_first_iteration(tmp_path):
    cfg = detection_config(write_coco(tmp_path))
    cfg.model.rpn_head.anchor_generator.strides = [8, 16, 32, 64, 128]
    assert refusal(cfg).startswith('model.rpn_head.anchor_generator.strides=[8, 16, 32, 64, 128], but the maps')
