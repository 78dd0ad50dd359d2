# Contrastive: mmpretrain's MoCo v3 (arXiv 2104.02057) on our backbone, with that paper's settings for ViT-B: 300
# epochs, batch 4096, a learning rate of 1.5e-4 for every 256 images, weight decay 0.1.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs512_mocov3.py',
    '../_base_/schedules/map_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='MoCoV3',
    base_momentum=0.01,
    backbone=dict(
        type='MAPHybrid',
        arch='base',
        img_size=224,
        patch_size=16,
        out_type='avg_featmap',
    ),
    neck=dict(
        type='NonLinearNeck',
        in_channels=768,
        hid_channels=4096,
        out_channels=256,
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
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
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

train_dataloader = dict(
    batch_size=256,
    # Batch norm cannot take a last batch of one sample, which some numbers of processes give.
    drop_last=True,
    # Anew, for mmengine would hand the scope that a base of mmpretrain's leaves here to the function.
    collate_fn=dict(_delete_=True, type='default_collate'),
)

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    optimizer=dict(lr=1.5e-4 * 4096 / 256, weight_decay=0.1),
)
auto_scale_lr = dict(base_batch_size=4096, enable=True)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=260, by_epoch=True, begin=40, end=300, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=3))
