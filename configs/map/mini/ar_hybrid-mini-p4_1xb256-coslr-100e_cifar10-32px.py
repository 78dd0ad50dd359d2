# Autoregressive pretraining after ARM (arXiv 2406.07537): the next cluster of patches from all clusters before it, by a
# causal encoder. 2 x 2 patches a cluster, 4 x 4 clusters; ARM's 224 pixels have 4 x 4 patches a cluster.
_base_ = './map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(
    _delete_=True,
    type='AR',
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=128, layout='MMMT' * 2, num_heads=4),
        img_size=32,
        patch_size=4,
        out_type='raw',
        serialization=dict(type='block', size=2),
    ),
    neck=dict(type='NextRegionDecoder', embed_dim=96, depth=2, num_heads=4),
    head=dict(type='PixelReconstructionHead', norm_pix=True),
)
