# One small encoder, 6 Mamba and 2 Transformer blocks, for images of 32 x 32 pixels in patches of 4 and for clouds in 32
# groups of 16 points. The sizes are those of map_hybrid-mini.py, groups and decoder those of pointmap_hybrid-mini.py.
arch = dict(embed_dim=128, layout='MMMT' * 2, num_heads=4, mlp_ratio=2.0)

model = dict(
    type='JointMAP',
    image=dict(
        type='MAP',
        backbone=dict(type='MAPHybrid', arch=arch, img_size=32, patch_size=4, out_type='raw', pos_embed='coordinates'),
        neck=dict(type='RegionCausalDecoder', embed_dim=96, depth=2, num_heads=4),
        # Targets of single pixels and of 2 x 2 of them.
        head=dict(type='PixelReconstructionHead', scales=((1, 1.0), (2, 0.5))),
        masking=dict(type='RandomMasking', ratio=0.5),
    ),
    points=dict(
        type='MAP',
        backbone=dict(
            type='PointMAPHybrid',
            arch=arch,
            num_groups=32,
            group_size=16,
            out_type='raw',
            # Patches have no neighbours in space, and the encoder is one.
            local_neighbours=0,
        ),
        neck=dict(type='RegionCausalDecoder', embed_dim=96, depth=2, num_heads=4),
        # Targets of 16 points and of 8 of them.
        head=dict(type='PointReconstructionHead', scales=((1, 1.0), (2, 0.5))),
        masking=dict(type='RandomMasking', ratio=0.6),
    ),
    # With it the gradients of both are of one size in the encoder, once squared distances have become small.
    points_weight=10.0,
)
