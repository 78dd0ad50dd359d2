_base_ = './mamba-r-stage3_hybrid-base-p16_8xb64-amp-coslr-20e_in1k.py'

load_from = 'work_dirs/mamba-r-stage2_hybrid-tiny-p16_8xb128-amp-coslr-100e_in1k/epoch_100.pth'
model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.1),
    neck=dict(reduction=1),
)
