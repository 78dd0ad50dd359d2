# ModelNet40, 1024 points of each shape as the field has them: farthest points, of which training draws some at random.
dataset_type = 'ModelNet40'
data_root = 'data/modelnet40_normal_resampled'
num_classes = 40

data_preprocessor = dict(type='PointDataPreprocessor')

train_dataloader = dict(
    batch_size=32,
    # Batch norm cannot take a last batch of one sample, which some numbers of processes give.
    drop_last=True,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        pipeline=[
            dict(type='PointsNormalize'),
            dict(type='PointsSample', num_points=1200, method='fps'),
            dict(type='PointsSample', num_points=1024),
            dict(type='PointsScaleTranslate'),
            dict(type='PackPointInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='test',
        pipeline=[
            dict(type='PointsNormalize'),
            dict(type='PointsSample', num_points=1024, method='fps'),
            dict(type='PackPointInputs'),
        ],
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

# Ten votes: each for other points of the shape, scaled and shifted otherwise (Point-BERT, arXiv 2111.14819).
tta_pipeline = [
    dict(type='PointsNormalize'),
    dict(type='PointsSample', num_points=1200, method='fps'),
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
