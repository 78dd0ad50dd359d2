# A detector of one stage on the car parts, as wide as their Faster R-CNN.
_base_ = [
    '../_base_/models/retinanet_hybrid-tiny.py',
    '../_base_/datasets/carparts-boxes_coco_256px.py',
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
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-mini-p8_1xb32-coslr-200e_carparts-128px/epoch_200.pth'),
    ),
    # Patches of 8 pixels: strides 4, 8, 16 and 32, anchors with sides of 16 to 203 pixels.
    neck=dict(in_channels=128, out_channels=64, scales=(2, 1, 0.5, 0.25)),
    bbox_head=dict(
        num_classes=18,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(strides=[4, 8, 16, 32]),
    ),
)

# Four pictures of each evaluation; all 80 of a test.
default_hooks = dict(logger=dict(interval=20), visualization=dict(draw=True, interval=20))
