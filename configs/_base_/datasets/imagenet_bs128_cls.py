# ImageNet-1K with labels, under data/imagenet/{train,val}/CLASS/*.JPEG, augmented as DeiT and MAE do for fine-tuning.
dataset_type = 'ImageNet'
data_root = 'data/imagenet'

data_preprocessor = dict(
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    # Images are loaded as BGR.
    to_rgb=True,
)

# The parts from which configs compose their pipelines.
crop = dict(type='LoadRandomResizedCrop', scale=224, interpolation='bicubic')
flip = dict(type='RandomFlip', prob=0.5)
# rand-m9-mstd0.5-inc1; what a shear or a shift uncovers gets the mean colour.
rand_augment = dict(
    type='RandAugment',
    policies='timm_increasing',
    num_policies=2,
    total_level=10,
    magnitude_level=9,
    magnitude_std=0.5,
    hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
)
random_erasing = dict(
    type='RandomErasing',
    erase_prob=0.25,
    mode='rand',
    min_area_ratio=0.02,
    max_area_ratio=1 / 3,
    # In the order of the image: BGR.
    fill_color=[103.53, 116.28, 123.675],
    fill_std=[57.375, 57.12, 58.395],
)
pack = dict(type='PackInputs')

# Evaluation stops at an image that cannot be read: an accuracy over fewer images is not comparable.
load = dict(type='LoadImageChecked', on_error='raise')
test_pipeline = [
    load,
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    pack,
]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        pipeline=[crop, flip, rand_augment, random_erasing, pack],
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, split='val', pipeline=test_pipeline),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
