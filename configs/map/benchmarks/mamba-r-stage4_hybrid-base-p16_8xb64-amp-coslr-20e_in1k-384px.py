# Not in the released code, which says no more of 384 px than the accuracy: the figures of stage 3, which are those of
# DeiT III's fine-tuning at 384 px (arXiv 2204.07118).
_base_ = './mamba-r-stage3_hybrid-base-p16_8xb64-amp-coslr-20e_in1k.py'

load_from = 'work_dirs/mamba-r-stage3_hybrid-base-p16_8xb64-amp-coslr-20e_in1k/epoch_20.pth'
model = dict(backbone=dict(img_size=384))

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadRandomResizedCrop', scale=384, interpolation='bicubic'),
            _base_.flip,
            _base_.rand_augment,
            _base_.pack,
        ]
    )
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            _base_.load,
            dict(type='ResizeEdge', scale=384, edge='short', backend='pillow', interpolation='bicubic'),
            dict(type='CenterCrop', crop_size=384),
            _base_.pack,
        ]
    )
)
test_dataloader = val_dataloader
