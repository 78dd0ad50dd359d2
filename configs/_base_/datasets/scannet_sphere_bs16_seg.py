# ScanNet v2, laid out by tools/dataset_converters/scannet.py. Spheres with a radius of 2 m, one point of each voxel of
# 4 cm, 8192 of them with colours.
dataset_type = 'ScanNetScenes'
data_root = 'data/scannet'
in_channels = 6
num_classes = 20
crop = dict(crop='sphere', size=2.0, num_points=8192)
voxel_size = 0.04

train_pipeline = [
    dict(type='LoadScene', features=('rgb',)),
    dict(type='PointsColorAutoContrast', prob=0.2),
    dict(type='PointsColorJitter', std=12.75, prob=0.95),
    dict(type='PointFeatureNormalize', feature='rgb'),
    dict(type='VoxelSample', voxel_size=voxel_size),
    dict(type='SceneCrop', centre='balanced', **crop),
    dict(type='PackPointInputs'),
]
test_pipeline = [
    dict(type='LoadScene', features=('rgb',)),
    dict(type='PointFeatureNormalize', feature='rgb'),
    dict(type='PackPointInputs'),
]
# For model.test_cfg of a SceneSegmentor.
scene_test_cfg = dict(stride=1.0, voxel_size=voxel_size, num_votes=1, batch_size=8, **crop)

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', crops=9608, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, split='val', test_mode=True, pipeline=test_pipeline),
)
val_evaluator = dict(type='SceneSegMetric')
# The benchmark's test: tools/test.py ... --cfg-options test_dataloader.dataset.split=test --submission DIR
test_dataloader = val_dataloader
test_evaluator = val_evaluator
