# ADE20K, the 150 classes of the scene parsing challenge, under data/ade/ADEChallengeData2016 as
# tools/dataset_converters/ade20k.py lays it out. Augmentation as everywhere in the field, in mmseg's words.
dataset_type = 'ADE20KDataset'
data_root = 'data/ade/ADEChallengeData2016'

# ADE20KDataset makes label 0, "other", the ignored one.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # A shorter edge of 512 pixels, unless the longer would be above 2048.
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    # After the resizing: the labels keep the size of the file, at which predictions are compared.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# With `tools/test.py --tta`, as for the "multi-scale" figures of BEiT and Swin: six shares of the 512 pixels, each
# mirrored as well. mmseg's own configs take shares of the size of the file.
tta_ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    # Images differ in size.
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_dataloader = val_dataloader
test_evaluator = val_evaluator
