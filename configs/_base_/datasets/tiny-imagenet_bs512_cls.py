# Tiny-ImageNet-200 with labels, 64 x 64, in folders data/tiny-imagenet-200/{train,test}/CLASS/*; test holds the
# validation images, whose labels are known. See tiny-imagenet_bs512_map.py for how they are read.
data_preprocessor = dict(
    type='ClsCropDataPreprocessor',
    crop=dict(scale=64, crop_ratio_range=(0.35, 1.0)),
    num_classes=200,
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
val_dataloader = dict(
    batch_size=500,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='DecodedImages',
        size=64,
        data_root='data/tiny-imagenet-200',
        data_prefix='test',
        pipeline=[dict(type='PackSmallImage')],
        test_mode=True,
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
