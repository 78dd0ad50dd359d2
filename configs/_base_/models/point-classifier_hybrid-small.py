# A classifier of shapes on the backbone of PointMAP, with the head of Mamba3D and Point-MAE (arXiv 2203.06604).
model = dict(
    type='HybridClassifier',
    data_preprocessor=dict(type='PointDataPreprocessor'),
    backbone=dict(
        type='PointMAPHybrid', arch='small', num_groups=64, group_size=32, out_type='max_mean', drop_path_rate=0.1
    ),
    head=dict(
        type='StackedLinearClsHead',
        mid_channels=[256, 256],
        dropout_rate=0.5,
        norm_cfg=dict(type='BN1d'),
        act_cfg=dict(type='ReLU'),
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
