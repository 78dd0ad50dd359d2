# SimMIM (arXiv 2111.09886): mask tokens inside the encoder, a linear head, an L1 loss on raw pixels, 60 % hidden.
_base_ = './map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(
    _delete_=True,
    type='HybridSimMIM',
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=128, layout='MMMT' * 2, num_heads=4),
        img_size=32,
        patch_size=4,
        out_type='raw',
    ),
    head=dict(type='PixelReconstructionHead', norm_pix=False, loss_type='l1'),
    masking=dict(type='RandomMasking', ratio=0.6),
)
