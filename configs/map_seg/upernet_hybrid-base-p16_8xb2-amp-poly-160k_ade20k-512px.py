_base_ = [
    '../_base_/models/map_hybrid-base_upernet.py',
    '../_base_/datasets/ade20k_bs2_seg.py',
    '../_base_/schedules/seg_adamw_bs16_poly_160k.py',
    '../_base_/seg_runtime.py',
]

model = dict(
    backbone=dict(
        # MAE's and BEiT's for base, in mmseg's configs as well.
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            # Where the pretraining config writes by default.
            checkpoint='work_dirs/map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    )
)

default_hooks = dict(checkpoint=dict(interval=4000, max_keep_ckpts=2, save_best='mIoU'))
