# ShapeNetPart, 2048 points of each shape for training; the test is on all points, one shape at a time as they differ in
# their number.
dataset_type = 'ShapeNetPart'
data_root = 'data/shapenetcore_partanno_segmentation_benchmark_v0_normal'
num_classes = 50
num_categories = 16
category_parts = (
    (0, 1, 2, 3),
    (4, 5),
    (6, 7),
    (8, 9, 10, 11),
    (12, 13, 14, 15),
    (16, 17, 18),
    (19, 20, 21),
    (22, 23),
    (24, 25, 26, 27),
    (28, 29),
    (30, 31, 32, 33, 34, 35),
    (36, 37),
    (38, 39, 40),
    (41, 42, 43),
    (44, 45, 46),
    (47, 48, 49),
)

data_preprocessor = dict(type='PointDataPreprocessor')

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    drop_last=True,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='trainval',
        pipeline=[
            dict(type='PointsNormalize'),
            dict(type='PointsSample', num_points=2048),
            dict(type='PointsScaleTranslate'),
            dict(type='PackPointInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='test',
        pipeline=[dict(type='PointsNormalize'), dict(type='PackPointInputs')],
    ),
)
val_evaluator = dict(type='PartIoUMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator

# Ten votes, for the shape scaled and shifted otherwise.
tta_pipeline = [
    dict(type='PointsNormalize'),
    dict(
        type='TestTimeAug',
        transforms=[[dict(type='PointsScaleTranslate')] * 10, [dict(type='PackPointInputs')]],
    ),
]
tta_model = dict(type='AveragePointScoreTTA')
