# Mask R-CNN on a plain backbone, as ViTDet has it (arXiv 2203.16527, section 3 and appendix A.2): a simple feature
# pyramid from the last map, two convolutions in the RPN, four and a linear layer in the box head, LayerNorm in both
# RoI heads. What is not named here is mmdet's Mask R-CNN.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

# Over the channels of a map. mmdet has no such norm of its own.
norm_cfg = dict(type='mmpretrain.LN2d')
model = dict(
    # Patches have 16 pixels, the coarsest level of the pyramid 32.
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        _delete_=True,
        type='MAPHybrid',
        arch='base',
        # The grid of the pretraining; each batch has it resized to its own.
        img_size=224,
        patch_size=16,
        out_type='featmap',
        # ViTDet's for ViT-B.
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            # Where the pretraining config writes by default.
            checkpoint='work_dirs/map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=768, scales=(4, 2, 1, 0.5), with_max_pool=True),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
