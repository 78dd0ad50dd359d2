# ImageNet-1K images without labels, under data/imagenet/train/CLASS/*.JPEG.
dataset_type = 'ImageNet'
data_root = 'data/imagenet/'

data_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

# Crop and flip only, as the paper says. The released script also leaves mixup, cutmix, RandAugment, colour jitter,
# random erasing and repeated augmentation on, which its base code has as defaults of supervised training.
train_pipeline = [
    # LoadImageFromFile and RandomResizedCrop with Pillow's bicubic filter, with AVX2 in less than half of the time.
    # Names a broken image in the log and draws another one.
    dict(
        type='LoadRandomResizedCrop',
        scale=224,
        # MAE's range: a crop must leave something to rebuild from.
        crop_ratio_range=(0.2, 1.0),
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline),
)
