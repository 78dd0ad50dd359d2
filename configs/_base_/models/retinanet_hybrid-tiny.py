# RetinaNet (arXiv 1708.02002) on a plain backbone. What is not named here is mmdet's RetinaNet.
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MAPHybrid',
        arch='tiny',
        # The grid of the pretraining; each batch has it resized to its own.
        img_size=224,
        patch_size=16,
        out_type='featmap',
        init_cfg=dict(
            type='Pretrained',
            # Where the pretraining config writes by default.
            checkpoint='work_dirs/map_hybrid-tiny-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
    # Patches have 16 pixels: the strides 8, 16, 32, 64 and 128 of the head's anchors.
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=192, scales=(2, 1, 0.5, 0.25, 0.125)),
)
