# The demo: a small hybrid backbone on 4,000 handwritten digits, in minutes on a laptop's CPU. tools/demo.py prepares
# the images and reports. 7 x 7 tokens of 4 x 4 pixels; a region is a row of 7.
_base_ = ['../_base_/schedules/map_adamw.py', '../_base_/default_runtime.py']

model = dict(
    type='MAP',
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=96, layout='MMMT', num_heads=4),
        img_size=28,
        patch_size=4,
        out_type='raw',
    ),
    neck=dict(type='RegionCausalDecoder', embed_dim=64, depth=2, num_heads=4),
    head=dict(type='PixelReconstructionHead', norm_pix=True),
    masking=dict(type='RandomMasking', ratio=0.5),
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[33.3] * 3, std=[78.6] * 3),
)

data_root = 'data/digits'

train_dataloader = dict(
    batch_size=64,
    # Loading such images is cheap; a worker would take a core from the training.
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFolder',
        data_root=data_root,
        data_prefix='train',
        pipeline=[
            dict(type='LoadImageChecked'),
            # No flip: a mirrored digit is not a digit.
            dict(
                type='RandomResizedCrop',
                scale=28,
                crop_ratio_range=(0.6, 1.0),
                aspect_ratio_range=(0.8, 1.25),
                interpolation='bicubic',
            ),
            dict(type='PackInputs'),
        ],
    ),
)

labelled_pipeline = [dict(type='LoadImageChecked', on_error='raise'), dict(type='PackInputs')]
bank_dataloader = dict(
    batch_size=250,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageFolder', data_root=data_root, data_prefix='train', pipeline=labelled_pipeline),
)
query_dataloader = dict(
    batch_size=250,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageFolder', data_root=data_root, data_prefix='test', pipeline=labelled_pipeline),
)

optim_wrapper = dict(optimizer=dict(lr=2e-3, betas=(0.9, 0.95)))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=14, by_epoch=True, begin=2, end=16, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=16)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=2, max_keep_ckpts=1))
custom_hooks = [
    dict(type='ReconstructionHook', interval=4),
    dict(type='KNNHook', bank_dataloader=bank_dataloader, query_dataloader=query_dataloader, interval=4),
]
