# Mask R-CNN of mask-rcnn_hybrid-base.py without the masks: a simple feature pyramid from the last map, two convolutions
# in the RPN, four and a linear layer in the box head, LayerNorm in it (ViTDet, arXiv 2203.16527). The rest is mmdet's
# Faster R-CNN.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

model = dict(
    # Patches have 16 pixels, the coarsest level of the pyramid 32.
    data_preprocessor=dict(pad_size_divisor=32),
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
    # Strides 4, 8, 16 and 32, and 64 for the proposals alone.
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=192, scales=(4, 2, 1, 0.5), with_max_pool=True),
    rpn_head=dict(num_convs=2),
    # The norm is over the channels of a map. mmdet has no such norm of its own.
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=dict(type='mmpretrain.LN2d'))
    ),
)
