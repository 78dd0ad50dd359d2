# ShapeNet-55, 1024 of the 8192 points of each shape, for pretraining. The field pretrains on both of its splits.
dataset_type = 'ShapeNet55'
data_root = 'data/ShapeNet55-34'

data_preprocessor = dict(type='PointDataPreprocessor')

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    drop_last=True,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='all',
        pipeline=[
            dict(type='PointsNormalize'),
            dict(type='PointsSample', num_points=1024),
            dict(type='PointsScaleTranslate'),
            dict(type='PackPointInputs'),
        ],
    ),
)
