# An example for COCO's format: a small backbone and narrow heads, for a CPU, from what the pretraining on the same
# images writes.
_base_ = [
    '../_base_/models/mask-rcnn_hybrid-base.py',
    '../_base_/datasets/carparts_coco_256px.py',
    '../_base_/schedules/det_adamw_bs4_coslr_30e.py',
    '../_base_/det_runtime.py',
]

model = dict(
    # Every batch is padded to the one size that positions are stored for.
    data_preprocessor=dict(pad_size_divisor=256),
    backbone=dict(
        arch=dict(_delete_=True, embed_dim=128, layout='MMMT' * 2, num_heads=4),
        img_size=256,
        patch_size=8,
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-mini-p8_1xb32-coslr-200e_carparts-128px/epoch_200.pth'),
    ),
    # Patches of 8 pixels: strides 4, 8, 16, and 32 for the proposals alone.
    neck=dict(in_channels=128, out_channels=64, scales=(2, 1, 0.5)),
    rpn_head=dict(
        in_channels=64, feat_channels=64, num_convs=1, anchor_generator=dict(scales=[6], strides=[4, 8, 16, 32])
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8, 16], finest_scale=28),
        bbox_head=dict(in_channels=64, conv_out_channels=64, fc_out_channels=256, num_classes=18),
        mask_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8, 16], finest_scale=28),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=18),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=250), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=250)),
)

# Four pictures of each evaluation; all 80 of a test.
default_hooks = dict(logger=dict(interval=20), visualization=dict(draw=True, interval=20))
