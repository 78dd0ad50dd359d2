_base_ = './mamba-r-stage4_hybrid-base-p16_8xb64-amp-coslr-20e_in1k-384px.py'

load_from = 'work_dirs/mamba-r-stage3_hybrid-tiny-p16_8xb64-amp-coslr-20e_in1k/epoch_20.pth'
model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.1),
    neck=dict(reduction=1),
)
