# Autoregressive pretraining after ARM (arXiv 2406.07537): the next cluster of patches from all clusters before it, by a
# causal encoder. 2 x 2 patches a cluster, 4 x 4 clusters; ARM's 224 pixels have 4 x 4 patches a cluster.
_base_ = './map_hybrid-4m-p8_1xb512-amp-coslr-100e_tiny-imagenet-64px.py'

model = dict(
    _delete_=True,
    type='AR',
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=192, layout='MMMT' * 3, num_heads=6),
        img_size=64,
        patch_size=8,
        out_type='raw',
        serialization=dict(type='block', size=2),
    ),
    neck=dict(type='NextRegionDecoder', embed_dim=128, depth=2, num_heads=4),
    head=dict(type='PixelReconstructionHead', norm_pix=True),
)
