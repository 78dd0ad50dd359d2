# Parts of COSEG's aliens, chairs and vases and of human bodies (MeshCNN's releases) in one file of arrays: 1139 + 152
# shapes with 2048 points each, 4 categories with 19 parts.
dataset_type = 'PointCloudArrays'
data_root = 'data'
num_classes = 19
num_categories = 4
category_parts = ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9, 10), (11, 12, 13, 14, 15, 16, 17, 18))

data_preprocessor = dict(type='PointDataPreprocessor')

train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='coseg_human_part.npz',
        keys=dict(points='points_train', category='cat_train', pts_semantic_mask='part_train'),
        categories='categories',
        parts_per_category='parts_per_category',
        pipeline=[
            dict(type='PointsNormalize'),
            dict(type='PointsShuffle'),
            dict(type='PointsScaleTranslate'),
            dict(type='PackPointInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='coseg_human_part.npz',
        keys=dict(points='points_test', category='cat_test', pts_semantic_mask='part_test'),
        categories='categories',
        parts_per_category='parts_per_category',
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
