# MAP on the base-size hybrid backbone, 224 x 224 pixels in patches of 16.
model = dict(
    type='MAP',
    backbone=dict(
        type='MAPHybrid',
        arch='base',
        img_size=224,
        patch_size=16,
        out_type='raw',
        # As released.
        drop_path_rate=0.1,
    ),
    # The released decoder is this wide for every size of backbone.
    neck=dict(type='RegionCausalDecoder', embed_dim=192, depth=4, num_heads=16),
    head=dict(type='PixelReconstructionHead', norm_pix=True),
    # The paper masks 50 %. The released script draws a ratio around that for each step: ratio=(0.3, 0.7).
    masking=dict(type='RandomMasking', ratio=0.5),
)
