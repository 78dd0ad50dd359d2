# SHREC-16 (the split of SHREC 2011 with 16 shapes a class): 480 + 120 shapes of 30 classes in one file of arrays, 2048
# points each. The shapes lie along their principal axes, so none is turned.
dataset_type = 'PointCloudArrays'
data_root = 'data'
num_classes = 30

data_preprocessor = dict(type='PointDataPreprocessor')

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='shrec16.npz',
        keys=dict(points='points_train', gt_label='labels_train'),
        classes='classes',
        pipeline=[
            dict(type='PointsNormalize'),
            dict(type='PointsSample', num_points=1024),
            dict(type='PointsScaleTranslate'),
            dict(type='PackPointInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=60,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='shrec16.npz',
        keys=dict(points='points_test', gt_label='labels_test'),
        classes='classes',
        # The points of the file are in random order.
        pipeline=[
            dict(type='PointsNormalize'),
            dict(type='PointsSample', num_points=1024, method='first'),
            dict(type='PackPointInputs'),
        ],
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

# Ten votes: each for other points of the shape, scaled and shifted otherwise.
tta_pipeline = [
    dict(type='PointsNormalize'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='PointsSample', num_points=1024)],
            [dict(type='PointsScaleTranslate')] * 10,
            [dict(type='PackPointInputs')],
        ],
    ),
]
tta_model = dict(type='AverageClsScoreTTA')
