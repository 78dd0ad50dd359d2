# S3DIS, area 5 for the test, laid out by tools/dataset_converters/s3dis.py. Blocks of 1 x 1 m with 4096 points of nine
# channels, as PointNet has them (arXiv 1612.00593, section 5.2): coordinates, colours, position in the room.
dataset_type = 'S3DISScenes'
data_root = 'data/s3dis'
# Another fold: --cfg-options train_dataloader.dataset.test_area=1 and the same for val_dataloader and test_dataloader.
test_area = 5
in_channels = 9
num_classes = 13

train_pipeline = [
    dict(type='LoadScene', features=('rgb',)),
    dict(type='SceneFeatures', features=('position',)),
    dict(type='PointsColorAutoContrast', prob=0.2),
    dict(type='PointsColorDrop', prob=0.2),
    dict(type='PointFeatureNormalize', feature='rgb'),
    dict(type='SceneCrop', crop='block', size=1.0, num_points=4096),
    dict(type='PackPointInputs'),
]
test_pipeline = [
    dict(type='LoadScene', features=('rgb',)),
    dict(type='SceneFeatures', features=('position',)),
    dict(type='PointFeatureNormalize', feature='rgb'),
    dict(type='PackPointInputs'),
]
# For model.test_cfg of a SceneSegmentor.
scene_test_cfg = dict(crop='block', size=1.0, stride=0.5, num_points=4096, batch_size=16)

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        test_area=test_area,
        # An epoch.
        crops=24000,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, test_area=test_area, test_mode=True, pipeline=test_pipeline),
)
val_evaluator = dict(type='SceneSegMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
