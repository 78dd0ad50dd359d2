# SimMIM (arXiv 2111.09886): mask tokens inside the encoder, a linear head, an L1 loss on raw pixels, 60 % hidden.
_base_ = './map_hybrid-4m-p8_1xb512-amp-coslr-100e_tiny-imagenet-64px.py'

model = dict(
    _delete_=True,
    type='HybridSimMIM',
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=192, layout='MMMT' * 3, num_heads=6),
        img_size=64,
        patch_size=8,
        out_type='raw',
    ),
    head=dict(type='PixelReconstructionHead', norm_pix=False, loss_type='l1'),
    masking=dict(type='RandomMasking', ratio=0.6),
)
