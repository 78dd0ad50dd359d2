# The training images of Tiny-ImageNet-200, 64 x 64, in folders data/tiny-imagenet-200/{train,test}/CLASS/*. They are
# decoded once and kept in memory; crops and flips are made on the device of the model, a batch at a time.
data_preprocessor = dict(
    type='SelfSupCropDataPreprocessor',
    crop=dict(scale=64, crop_ratio_range=(0.2, 1.0)),
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

train_dataloader = dict(
    batch_size=512,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='DecodedImages',
        size=64,
        data_root='data/tiny-imagenet-200',
        data_prefix='train',
        pipeline=[dict(type='PackSmallImage')],
    ),
)
