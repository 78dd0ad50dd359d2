# The training images of CamVid without labels: crops of 128 pixels, at about the scale at which they are segmented.
dataset_type = 'ImageFolder'
data_root = 'data/camvid'

data_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix='images/train',
        with_label=False,
        pipeline=[
            # 128 x 128 pixels are a tenth of an image.
            dict(type='LoadRandomResizedCrop', scale=128, crop_ratio_range=(0.05, 0.4), interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
