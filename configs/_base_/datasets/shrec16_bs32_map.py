# The 480 training shapes of SHREC-16 (the split of SHREC 2011 with 16 shapes a class), in one file of arrays, without
# their labels. The shapes lie along their principal axes, so none is turned.
dataset_type = 'PointCloudArrays'
data_root = 'data'

data_preprocessor = dict(type='PointDataPreprocessor')

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    drop_last=True,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='shrec16.npz',
        keys=dict(points='points_train'),
        pipeline=[
            dict(type='PointsNormalize'),
            dict(type='PointsSample', num_points=1024),
            dict(type='PointsScaleTranslate'),
            dict(type='PackPointInputs'),
        ],
    ),
)
