# Autoregressive pretraining after ARM (arXiv 2406.07537): the next cluster of patches from all clusters before it, by a
# causal encoder. 4 x 4 patches a cluster as there, which leaves half clusters at the far edges of 14 x 14 patches.
_base_ = '../map/map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py'

model = dict(
    _delete_=True,
    type='AR',
    backbone=dict(
        type='MAPHybrid',
        arch='base',
        img_size=224,
        patch_size=16,
        out_type='raw',
        drop_path_rate=0.1,
        serialization=dict(type='block', size=4),
    ),
    neck=dict(type='NextRegionDecoder', embed_dim=192, depth=4, num_heads=16),
    head=dict(type='PixelReconstructionHead', norm_pix=True),
)
