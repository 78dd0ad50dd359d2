# ScanObjectNN, all 2048 points of each object, in its hardest variant PB_T50_RS. The others: variant='obj_bg' and
# variant='obj_only'.
dataset_type = 'ScanObjectNN'
data_root = 'data/ScanObjectNN'
num_classes = 15

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
        variant='pb_t50_rs',
        split='train',
        # Turned about the vertical, y, neither scaled nor shifted (ACT, arXiv 2212.08320).
        pipeline=[
            dict(type='PointsNormalize'),
            dict(type='PointsShuffle'),
            dict(type='PointsRotate', axis='y'),
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
        variant='pb_t50_rs',
        split='test',
        pipeline=[dict(type='PointsNormalize'), dict(type='PackPointInputs')],
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

# Ten votes, for the object turned otherwise.
tta_pipeline = [
    dict(type='PointsNormalize'),
    dict(
        type='TestTimeAug',
        transforms=[[dict(type='PointsRotate', axis='y')] * 10, [dict(type='PackPointInputs')]],
    ),
]
tta_model = dict(type='AverageClsScoreTTA')
