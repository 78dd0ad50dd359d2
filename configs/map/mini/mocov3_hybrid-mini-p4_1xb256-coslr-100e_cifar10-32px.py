# Contrastive: mmpretrain's MoCo v3 (arXiv 2104.02057) on our backbone. No blur and no solarization at 32 pixels, as is
# usual on CIFAR.
_base_ = './map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(
    _delete_=True,
    type='MoCoV3',
    base_momentum=0.01,
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=128, layout='MMMT' * 2, num_heads=4),
        img_size=32,
        patch_size=4,
        out_type='avg_featmap',
    ),
    neck=dict(
        type='NonLinearNeck',
        in_channels=128,
        hid_channels=512,
        out_channels=128,
        num_layers=3,
        with_bias=False,
        with_last_bn=True,
        with_last_bn_affine=False,
        with_last_bias=False,
        with_avg_pool=False,
    ),
    head=dict(
        type='MoCoV3Head',
        predictor=dict(
            type='NonLinearNeck',
            in_channels=128,
            hid_channels=512,
            out_channels=128,
            num_layers=2,
            with_bias=False,
            with_last_bn=True,
            with_last_bn_affine=False,
            with_last_bias=False,
            with_avg_pool=False,
        ),
        loss=dict(type='CrossEntropyLoss', loss_weight=2 * 0.2),
        temperature=0.2,
    ),
)

view = [
    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
    dict(
        type='RandomApply',
        transforms=[dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)],
        prob=0.8,
    ),
    # The images are RGB.
    dict(type='RandomGrayscale', prob=0.2, keep_channels=True, channel_weights=(0.2989, 0.587, 0.114)),
    dict(type='RandomFlip', prob=0.5),
]
train_dataloader = dict(
    # Batch norm cannot take a last batch of one sample, which some numbers of processes give.
    drop_last=True,
    dataset=dict(pipeline=[dict(type='MultiView', num_views=2, transforms=[view]), dict(type='PackInputs')]),
)
