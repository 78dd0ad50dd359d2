# SimMIM (arXiv 2111.09886): mask tokens inside the encoder, a linear head, an L1 loss on raw pixels, 60 % hidden.
# SimMIM's own figures are of 800 epochs and of patches of 32 pixels hidden together.
_base_ = '../map/map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py'

model = dict(
    _delete_=True,
    type='HybridSimMIM',
    backbone=dict(type='MAPHybrid', arch='base', img_size=224, patch_size=16, out_type='raw', drop_path_rate=0.1),
    head=dict(type='PixelReconstructionHead', norm_pix=False, loss_type='l1'),
    masking=dict(type='RandomMasking', ratio=0.6),
)
