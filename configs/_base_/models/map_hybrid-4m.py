# MAP on a hybrid backbone of 4 M parameters, 64 x 64 pixels in patches of 8: 8 x 8 tokens.
model = dict(
    type='MAP',
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=192, layout='MMMT' * 3, num_heads=6),
        img_size=64,
        patch_size=8,
        out_type='raw',
    ),
    neck=dict(type='RegionCausalDecoder', embed_dim=128, depth=2, num_heads=4),
    head=dict(type='PixelReconstructionHead', norm_pix=True),
    masking=dict(type='RandomMasking', ratio=0.5),
)
