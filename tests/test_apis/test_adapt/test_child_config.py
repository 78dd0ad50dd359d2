import pytest
import torch

from mmmap.apis.adapt import Backbone, adapt_config, read_base
from mmmap.apis.adapt.probe import build_initialised
from mmmap.apis.adapt.samples import make_batch
from mmmap.registry import MODELS
from mmmap.utils.errors import UserError


def maps_of(cfg, size):
    """The padded size of a batch of pictures, and the sizes of the maps that the heads get."""
    model = build_initialised(cfg)
    data = model.data_preprocessor(make_batch('mmdet', size), True)
    with torch.no_grad():
        maps = model.extract_feat(data['inputs'])
    return model, data['inputs'].shape[-2:], [x.shape[-2:] for x in maps]


@pytest.mark.parametrize('kind', ['retinanet', 'fcos'])
def test_all_priors_lie_in_the_picture(adapted, request, kind):
    cfg = adapted(request.getfixturevalue(kind))
    # FCOS has the pixels of a caffe model: BGR, and no deviation.
    pixels = cfg.model.data_preprocessor
    assert pixels.bgr_to_rgb is True
    assert (pixels.mean, pixels.std) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    model, padded, shapes = maps_of(cfg, (130, 200))
    assert padded == (256, 256)
    generator = model.bbox_head.prior_generator
    assert [(padded[0] // h, padded[1] // w) for h, w in shapes] == [(s, s) for s in (8, 16, 32, 64, 128)]
    for priors in generator.grid_priors(shapes, device='cpu'):
        centres = priors if priors.shape[1] == 2 else (priors[:, :2] + priors[:, 2:]) / 2
        # (x, y) against (height, width).
        assert (centres.max(0).values < torch.tensor([padded[1], padded[0]])).all()
        assert (centres.max(0).values >= torch.tensor([padded[1], padded[0]]) - 129).all()


def test_a_detector_as_one_would_write_it(adapted, retinanet):
    cfg = adapted(retinanet)
    assert cfg.model.backbone.to_dict() == dict(
        type='MAPHybrid', arch=dict(embed_dim=16, layout='MTMT', num_heads=2, d_state=4), out_type='featmap'
    )
    assert cfg.model.neck.scales == (2, 1, 0.5, 0.25, 0.125)
    assert cfg.model.data_preprocessor.pad_size_divisor == 128
    assert cfg.optim_wrapper.optimizer.to_dict() == dict(type='AdamW', lr=1e-4, weight_decay=0.1)
    assert cfg.optim_wrapper.constructor == 'LayerDecayOptimWrapperConstructor'
    assert 'paramwise_cfg' not in cfg.optim_wrapper
    assert cfg.custom_imports.imports == ['mmmap']
    assert '_delete_' not in cfg.pretty_text


def test_a_segmentor_takes_only_the_maps_that_its_heads_read(adapted, pspnet):
    cfg = adapted(pspnet)
    model = cfg.model
    assert model.neck.scales == (2, 2)
    assert model.backbone.out_indices == (1, 3)
    assert (model.decode_head.in_index, model.decode_head.in_channels) == (1, 256)
    assert (model.auxiliary_head.in_index, model.auxiliary_head.in_channels) == (0, 256)
    # Whole patches in training and in the windows of a test.
    assert tuple(model.data_preprocessor['size']) == (784, 784)
    assert model.backbone.img_size == 784
    assert model.data_preprocessor.test_cfg.size_divisor == 16
    assert tuple(model.test_cfg.crop_size) == (784, 784)
    # At this learning rate the schedule's minimum would keep it constant.
    assert [part.eta_min for part in cfg.param_scheduler] == [0.0]
    assert [part.power for part in cfg.param_scheduler] == [0.9]
    assert model.pretrained is None


def test_a_classifier(adapted, resnet):
    cfg = adapted(resnet, Backbone(dict(arch=dict(embed_dim=16, layout='MT', num_heads=2), patch_size=4)))
    assert cfg.model.backbone.out_type == 'avg_featmap'
    assert cfg.model.backbone.img_size == 32
    assert cfg.model.neck is None
    assert cfg.model.head.in_channels == 16


def test_a_pretrained_backbone(adapted, resnet, tmp_path):
    arch = dict(embed_dim=16, layout='MT', num_heads=2)
    model = torch.nn.ModuleDict(dict(backbone=MODELS.build(dict(type='MAPHybrid', arch=arch, num_registers=1))))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    base = f'{resnet}\nload_from = "https://x/resnet.pth"\n'
    before = torch.get_rng_state()
    cfg = adapted(base, Backbone(dict(arch=arch, patch_size=16), pretrained=str(tmp_path / 'a.pth')))
    assert cfg.model.backbone.init_cfg.checkpoint == str(tmp_path / 'a.pth')
    assert torch.equal(before, torch.get_rng_state())
    # 0.65 for each of 12 blocks, as much for each of 2.
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.15
    assert cfg.load_from is None


def test_a_checkpoint_that_does_not_fit_is_refused(adapted, resnet, tmp_path):
    torch.save(dict(state_dict={'backbone.x': torch.zeros(1)}), tmp_path / 'a.pth')
    backbone = Backbone(dict(arch=dict(embed_dim=8, layout='MT', num_heads=2)), pretrained=str(tmp_path / 'a.pth'))
    with pytest.raises(UserError, match=r'the backbone cannot be built: .*a.pth: none of its 1 weights'):
        adapted(resnet, backbone)


def test_options_for_other_parts_are_kept(adapted, retinanet):
    cfg = adapted(
        retinanet
        + """
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=3e-4, weight_decay=0.02),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'backbone': dict(lr_mult=0.1), 'bbox_head.retina_cls': dict(lr_mult=2.0), 'norm': dict(decay_mult=0.0)
        },
    ),
)
"""
    )
    assert cfg.optim_wrapper.optimizer.to_dict() == dict(type='AdamW', lr=3e-4, weight_decay=0.02)
    assert cfg.optim_wrapper.paramwise_cfg.to_dict() == dict(custom_keys={'bbox_head.retina_cls': dict(lr_mult=2.0)})


CLASS_TOKENS = """
_base_ = 'mmseg::dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py'
model = dict(
    backbone=dict(embed_dims=16, num_layers=4, num_heads=2, out_indices=(0, 1, 2, 3)),
    decode_head=dict(in_channels=(16,) * 4, channels=8, embed_dims=16, post_process_channels=[8, 8, 8, 8]),
)
"""
NO_LEVELS = """
_base_ = 'mmseg::unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py'
model = dict(
    backbone=dict(base_channels=8),
    decode_head=dict(in_channels=8, channels=8),
    auxiliary_head=dict(in_channels=16, channels=8),
    test_cfg=dict(crop_size=(64, 64), stride=(42, 42)),
)
"""
LAST_STAGE = "_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py'\n"
TEACHER = "_base_ = 'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.01-coco.py'\n"
BROKEN = "_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'\nmodel = dict(head=dict(in_channels=5))\n"
PRETRAINING = "_base_ = 'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'\n"


@pytest.mark.parametrize(
    'text, words',
    [
        (CLASS_TOKENS, 'its heads take pairs of a map and class tokens'),
        (NO_LEVELS, 'strides 2, 1; from patches of 16 pixels there are 4, 8, 16, 32, 64, 128'),
        (LAST_STAGE, 'last stage of the ResNet .roi_head.shared_head.'),
        (TEACHER, 'it wraps another model'),
        (BROKEN, 'does not run as it is, before anything is changed: '),
        (PRETRAINING, 'it is pretrained'),
    ],
    ids=['class tokens', 'strides', 'last stage', 'wrapped', 'broken', 'pretraining'],
)
def test_what_cannot_have_it_is_refused_in_one_line(adapted, text, words, tmp_path):
    with pytest.raises(UserError, match=words) as refused:
        adapted(text)
    assert '\n' not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ['base.py']


def test_an_existing_file_stays_if_the_base_is_refused(write_base, small_backbone, tmp_path):
    out = tmp_path / 'child.py'
    out.write_text('mine')
    with pytest.raises(UserError):
        adapt_config(read_base(write_base(BROKEN)), small_backbone, out, 'A test.')
    assert out.read_text() == 'mine'
