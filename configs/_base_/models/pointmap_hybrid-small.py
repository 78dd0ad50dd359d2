# PointMAP at the released size: 12 Mamba and 4 Transformer blocks of width 384 over 64 groups of 32 points. Groups are
# read along a Hilbert curve and rebuilt in runs of 8, as the paper's figure has regions in space; the released code's
# regions are runs of the order in which farthest points are picked, visible groups first (released='v4').
model = dict(
    type='MAP',
    data_preprocessor=dict(type='PointDataPreprocessor'),
    backbone=dict(
        type='PointMAPHybrid', arch='small', num_groups=64, group_size=32, out_type='raw', drop_path_rate=0.1
    ),
    neck=dict(type='RegionCausalDecoder', embed_dim=384, depth=4, num_heads=6),
    head=dict(type='PointReconstructionHead', loss_type='l2'),
    # Mamba3D's ratio (arXiv 2404.14966), whose released pretraining PointMAP builds on.
    masking=dict(type='RandomMasking', ratio=0.6),
)
