# A segmentor of parts on the backbone of PointMAP: features of three depths, carried to each point.
model = dict(
    type='PointSegmentor',
    data_preprocessor=dict(type='PointDataPreprocessor'),
    backbone=dict(
        type='PointMAPHybrid',
        arch='small',
        num_groups=128,
        group_size=32,
        out_type='points',
        out_indices=(3, 7, 15),
        drop_path_rate=0.1,
    ),
    neck=dict(type='FeaturePropagation', out_channels=256),
    head=dict(type='PointSegHead'),
)
