# PointMAP on a small backbone, for a CPU: 3 Mamba blocks and 1 Transformer block, width 96, 32 groups of 16 points.
_base_ = './pointmap_hybrid-small.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dim=96, layout='MMMT', num_heads=4, mlp_ratio=4.0),
        num_groups=32,
        group_size=16,
        drop_path_rate=0.0,
    ),
    neck=dict(embed_dim=96, depth=2, num_heads=4),
)
