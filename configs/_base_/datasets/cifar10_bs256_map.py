dataset_type = 'CIFAR10'
data_root = 'data/cifar10'

data_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    # The images are RGB already.
    to_rgb=False,
)

train_dataloader = dict(
    batch_size=256,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        pipeline=[
            dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)

# Labelled images for the kNN accuracy: the bank votes, the queries are classified.
bank_dataloader = dict(
    batch_size=500,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', pipeline=[dict(type='PackInputs')]),
)
query_dataloader = dict(
    batch_size=500,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, split='test', pipeline=[dict(type='PackInputs')]),
)
