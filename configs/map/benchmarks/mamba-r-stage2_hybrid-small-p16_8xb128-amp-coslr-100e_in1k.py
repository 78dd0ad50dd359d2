_base_ = './mamba-r-stage2_hybrid-base-p16_8xb128-amp-coslr-100e_in1k.py'

load_from = 'work_dirs/mamba-r-stage1_hybrid-small-p16_8xb128-amp-coslr-300e_in1k-128px/epoch_300.pth'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.2),
    neck=dict(reduction=2),
)
