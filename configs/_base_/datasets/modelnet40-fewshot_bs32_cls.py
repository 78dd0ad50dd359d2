# The few-shot folds of ModelNet40 that the field shares; here 5 classes with 10 training shapes each, fold 0. Another:
# --cfg-options train_dataloader.dataset.fold=1 and the same for val_dataloader and test_dataloader.
dataset_type = 'ModelNetFewShot'
data_root = 'data/ModelNetFewshot'
way = 5
shot = 10
fold = 0

data_preprocessor = dict(type='PointDataPreprocessor')

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        way=way,
        shot=shot,
        fold=fold,
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
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        way=way,
        shot=shot,
        fold=fold,
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
