# Airborne LiDAR tiles, .npz files train_* and test_* with xyz, intensity and label (0 is unclassified), as they are.
# Blocks of 12 x 12 m, one point of each voxel of 40 cm, 2048 of them with intensity and height.
dataset_type = 'SceneDataset'
data_root = 'data/lidar_tiles'
metainfo = dict(
    classes=('ground', 'low vegetation', 'medium vegetation', 'high vegetation', 'building', 'other'),
    palette=[[170, 130, 90], [190, 230, 120], [90, 190, 70], [20, 110, 40], [200, 60, 60], [80, 80, 200]],
)
class_labels = (1, 2, 3, 4, 5, 6)
in_channels = 5
num_classes = 6
crop = dict(crop='block', size=12.0, num_points=2048)
voxel_size = 0.4

load = [
    dict(type='LoadScene', features=('intensity',), in_memory=True),
    dict(type='SceneFeatures', features=('height',)),
    dict(type='PointFeatureNormalize', feature='intensity', mean=900.0, std=300.0),
    # As the coordinates, in units of the crop.
    dict(type='PointFeatureNormalize', feature='height', mean=0.0, std=crop['size']),
]
train_pipeline = [
    *load,
    dict(type='VoxelSample', voxel_size=voxel_size),
    dict(type='SceneCrop', centre='balanced', **crop),
    dict(type='PackPointInputs'),
]
test_pipeline = [*load, dict(type='PackPointInputs')]
# For model.test_cfg of a SceneSegmentor.
scene_test_cfg = dict(stride=6.0, voxel_size=voxel_size, num_votes=1, batch_size=8, **crop)

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        pattern='train_*.npz',
        class_labels=class_labels,
        metainfo=metainfo,
        crops=160,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        pattern='test_*.npz',
        class_labels=class_labels,
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='SceneSegMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
