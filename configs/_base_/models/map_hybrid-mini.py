# MAP on a small hybrid backbone, 32 x 32 pixels in patches of 4: 8 x 8 tokens.
model = dict(
    type='MAP',
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=128, layout='MMMT' * 2, num_heads=4),
        img_size=32,
        patch_size=4,
        out_type='raw',
    ),
    neck=dict(type='RegionCausalDecoder', embed_dim=96, depth=2, num_heads=4),
    head=dict(type='PixelReconstructionHead', norm_pix=True),
    masking=dict(type='RandomMasking', ratio=0.5),
)
