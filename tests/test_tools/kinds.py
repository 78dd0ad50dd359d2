"""A tiny config of every kind of model that there are configs of."""

from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[2]
ARCH = dict(embed_dim=16, layout='MT', num_heads=2, d_state=4)
SIZE, POINTS = 32, 64
IMAGE = dict(type='MAPHybrid', arch=ARCH, img_size=SIZE, patch_size=8)
CLOUD = dict(type='PointMAPHybrid', arch=ARCH, num_groups=8, group_size=4, local_neighbours=2)
OF_GROUPS = CLOUD | dict(out_type='points', out_indices=(0, 1))
PIXELS = dict(type='PixelReconstructionHead')
NORMS = dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)
CLASSES = dict(num_classes=2, mean=[127.5] * 3, std=[127.5] * 3)
OF_CLOUDS = dict(type='PointDataPreprocessor')


def decoder(**changes) -> dict:
    return dict(type='RegionCausalDecoder', embed_dim=16, depth=1, num_heads=2, **changes)


def projection(layers: int) -> dict:
    return dict(
        type='NonLinearNeck', in_channels=16, hid_channels=8, out_channels=16, num_layers=layers, with_avg_pool=False
    )


MAP = dict(type='MAP', backbone=IMAGE, neck=decoder(), head=PIXELS, data_preprocessor=NORMS)
POINT_MAP = dict(
    type='MAP',
    backbone=CLOUD,
    neck=decoder(),
    head=dict(type='PointReconstructionHead'),
    data_preprocessor=OF_CLOUDS,
)
SEGMENTOR = dict(
    type='PointSegmentor',
    backbone=OF_GROUPS,
    neck=dict(type='FeaturePropagation', out_channels=8),
    head=dict(type='PointSegHead', num_classes=3),
)
MODELS = {
    'map': MAP,
    'mae': MAP | dict(neck=decoder(attention='full'), masking=dict(type='RandomMasking', ratio=0.75)),
    'ar': dict(
        type='AR',
        backbone=IMAGE,
        neck=dict(type='NextRegionDecoder', embed_dim=16, depth=1, num_heads=2),
        head=PIXELS,
        data_preprocessor=NORMS,
    ),
    'simmim': dict(type='HybridSimMIM', backbone=IMAGE, head=PIXELS, data_preprocessor=NORMS),
    'mocov3': dict(
        type='MoCoV3',
        backbone=IMAGE | dict(out_type='avg_featmap'),
        neck=projection(3),
        head=dict(type='MoCoV3Head', predictor=projection(2), loss=dict(type='CrossEntropyLoss'), temperature=0.2),
        data_preprocessor=NORMS,
    ),
    'classifier': dict(
        type='HybridClassifier',
        backbone=IMAGE | dict(out_type='avg_featmap'),
        head=dict(type='LinearClsHead', num_classes=2),
        data_preprocessor=CLASSES,
    ),
    'probe': dict(
        type='HybridClassifier',
        backbone=IMAGE | dict(out_type='avg_featmap', frozen_stages='all'),
        neck=dict(type='ClsBatchNormNeck'),
        head=dict(type='LinearClsHead', num_classes=2),
        data_preprocessor=CLASSES,
    ),
    'points': POINT_MAP,
    'point classifier': dict(
        type='HybridClassifier',
        backbone=CLOUD,
        head=dict(type='LinearClsHead', num_classes=2),
        data_preprocessor=OF_CLOUDS,
    ),
    'parts': SEGMENTOR
    | dict(
        neck=SEGMENTOR['neck'] | dict(num_categories=2),
        head=SEGMENTOR['head'] | dict(category_parts=((0, 1), (2,))),
    ),
    'scenes': dict(
        type='SceneSegmentor',
        segmentor=SEGMENTOR,
        test_cfg=dict(crop='block', size=1.0, stride=0.5, num_points=POINTS),
        data_preprocessor=OF_CLOUDS,
    ),
    'joint': dict(
        type='JointMAP',
        image=MAP | dict(backbone=IMAGE | dict(pos_embed='coordinates')),
        points=POINT_MAP | dict(backbone=CLOUD | dict(arch=ARCH | dict(mlp_ratio=2.0), local_neighbours=0)),
    ),
}
DENSE = {
    'segmentor': (
        'mmseg',
        'map_seg/upernet_hybrid-mini-p8_1xb4-poly-2k_camvid-256px.py',
        dict(
            data_preprocessor=dict(size=(SIZE, SIZE)),
            backbone=dict(arch=ARCH, img_size=SIZE, out_indices=(0, 1, 1), init_cfg=None),
            neck=dict(in_channels=16, out_channels=8),
            decode_head=dict(in_channels=[8] * 3, channels=8, norm_cfg=dict(type='GN', num_groups=2)),
            auxiliary_head=dict(in_channels=8, channels=8, norm_cfg=dict(type='GN', num_groups=2)),
        ),
    ),
    'detector': (
        'mmdet',
        'map_det/mask-rcnn_hybrid-mini-p8_1xb4-coslr-30e_carparts-256px.py',
        dict(
            backbone=dict(arch=ARCH, img_size=SIZE, init_cfg=None),
            neck=dict(in_channels=16, out_channels=8),
            rpn_head=dict(in_channels=8, feat_channels=8),
            roi_head=dict(
                bbox_roi_extractor=dict(out_channels=8),
                bbox_head=dict(in_channels=8, conv_out_channels=8, fc_out_channels=8),
                mask_roi_extractor=dict(out_channels=8),
                mask_head=dict(in_channels=8, conv_out_channels=8),
            ),
        ),
    ),
}
KINDS = [*MODELS, *DENSE]


def write_config(kind: str, path: Path) -> Path:
    """Write the config of a kind; data sets are named that are not there."""
    if kind in DENSE:
        _, base, changes = DENSE[kind]
        cfg = Config.fromfile(ROOT / 'configs' / base)
        cfg.merge_from_dict(dict(model=changes))
    else:
        views = [dict(type='MultiView', num_views=2, transforms=[[]])] if kind == 'mocov3' else []
        pipeline = [*views, dict(type='PointsSample', num_points=POINTS), dict(type='PackInputs')]
        loader = dict(batch_size=2, num_workers=0, dataset=dict(type='CustomDataset', pipeline=pipeline))
        cfg = Config(
            dict(
                custom_imports=dict(imports=['mmmap'], allow_failed_imports=False),
                default_scope='mmpretrain',
                model=MODELS[kind],
                train_dataloader=loader,
                test_dataloader=loader | dict(sampler=dict(type='DefaultSampler', shuffle=False)),
                train_cfg=dict(by_epoch=True, max_epochs=1),
                optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
                test_cfg={},
                test_evaluator=[],
            )
        )
    cfg.dump(path)
    return path
