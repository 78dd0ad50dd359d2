# Stage 1 of Mamba-R's training (arXiv 2405.14858 and the README of its released code): 128 px, here from a pretrained
# backbone. The position embedding is resized on loading; the registers, the neck and the head are new.
_base_ = [
    '../../_base_/models/map_hybrid-base_registers.py',
    '../../_base_/datasets/imagenet_bs128_cls.py',
    '../../_base_/schedules/cls_adamw.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        img_size=128,
        # Released for base. Ours for the other sizes: 0, 0.05, (0.1), 0.2, 0.3, rising as DeiT III's do.
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            # Where the pretraining config writes by default.
            checkpoint='work_dirs/map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
    # The labels are mixed; nothing is smoothed.
    head=dict(loss=dict(type='CrossEntropyLoss', use_soft=True)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

# The 3-Augment of DeiT III (arXiv 2204.07118): one of three, then jitter.
one_of_three = dict(
    type='RandomChoice',
    transforms=[
        [dict(type='RandomGrayscale', prob=1.0, keep_channels=True, channel_weights=(0.114, 0.587, 0.2989))],
        [dict(type='Solarize', thr=128, prob=1.0)],
        [dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=1.0)],
    ],
)
color_jitter = dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3)
train_dataloader = dict(
    # Three views of an image in each epoch, of a third of the images.
    sampler=dict(type='RepeatAugSampler'),
    dataset=dict(
        pipeline=[
            dict(type='LoadRandomResizedCrop', scale=128, interpolation='bicubic'),
            _base_.flip,
            one_of_three,
            color_jitter,
            _base_.pack,
        ]
    ),
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            _base_.load,
            dict(type='ResizeEdge', scale=146, edge='short', backend='pillow', interpolation='bicubic'),
            dict(type='CenterCrop', crop_size=128),
            _base_.pack,
        ]
    )
)
test_dataloader = val_dataloader

# 5e-4 for every 512 images of the global batch.
optim_wrapper = dict(optimizer=dict(lr=5e-4 * 1024 / 512))
auto_scale_lr = dict(base_batch_size=1024, enable=True)

# From 1e-6 to 1e-5, as released; stepped each iteration instead of each epoch.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=295,
        eta_min=1e-5,
        by_epoch=True,
        begin=5,
        end=300,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=5)

default_hooks = dict(checkpoint=dict(interval=5))
# Mixup draws on the device: each rank its own.
randomness = dict(diff_rank_seed=True)
