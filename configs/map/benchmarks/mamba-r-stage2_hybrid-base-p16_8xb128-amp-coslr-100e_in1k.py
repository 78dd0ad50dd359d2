# Stage 2 of Mamba-R's training: on at 224 px, with more stochastic depth.
_base_ = './mamba-r-stage1_hybrid-base-p16_8xb128-amp-coslr-300e_in1k-128px.py'

load_from = 'work_dirs/mamba-r-stage1_hybrid-base-p16_8xb128-amp-coslr-300e_in1k-128px/epoch_300.pth'
# Released for base. Ours for the other sizes: 0.1, 0.2, (0.4), 0.5, 0.6, rising as DeiT III's do.
model = dict(backbone=dict(img_size=224, drop_path_rate=0.4, init_cfg=None))

train_dataloader = dict(
    dataset=dict(pipeline=[_base_.crop, _base_.flip, _base_.one_of_three, _base_.color_jitter, _base_.pack])
)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

# 2e-4 for every 512 images of the global batch.
optim_wrapper = dict(optimizer=dict(lr=2e-4 * 1024 / 512))

param_scheduler = [
    dict(type='LinearLR', start_factor=2.5e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=95,
        eta_min=1e-5,
        by_epoch=True,
        begin=5,
        end=100,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=100)
