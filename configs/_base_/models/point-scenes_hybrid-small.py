# A segmentor of scenes on the backbone of PointMAP: trained on crops, tested on whole scenes.
model = dict(
    type='SceneSegmentor',
    data_preprocessor=dict(type='PointDataPreprocessor'),
    segmentor=dict(
        type='PointSegmentor',
        backbone=dict(
            type='PointMAPHybrid',
            arch='small',
            num_groups=256,
            group_size=32,
            out_type='points',
            out_indices=(3, 7, 15),
            drop_path_rate=0.1,
        ),
        neck=dict(type='FeaturePropagation', out_channels=256),
        head=dict(type='PointSegHead'),
    ),
)
