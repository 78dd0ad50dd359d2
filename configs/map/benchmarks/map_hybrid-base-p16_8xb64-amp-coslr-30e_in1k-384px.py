# The 224 px classifier, trained on at 384 px for a few epochs: what DeiT (arXiv 2012.12877), Swin and BEiT do, and far
# cheaper than fine-tuning the pretrained backbone at 384 px. The figures are Swin's (arXiv 2103.14030, appendix).
_base_ = './map_hybrid-base-p16_8xb128-amp-coslr-100e_in1k.py'

load_from = 'work_dirs/map_hybrid-base-p16_8xb128-amp-coslr-100e_in1k/epoch_100.pth'
model = dict(backbone=dict(img_size=384, init_cfg=None))

train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        pipeline=[
            dict(type='LoadRandomResizedCrop', scale=384, interpolation='bicubic'),
            _base_.flip,
            _base_.rand_augment,
            _base_.random_erasing,
            _base_.pack,
        ]
    ),
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            _base_.load,
            # MAE's evaluation above 224 px: nothing of the shorter edge is cut off.
            dict(type='ResizeEdge', scale=384, edge='short', backend='pillow', interpolation='bicubic'),
            dict(type='CenterCrop', crop_size=384),
            _base_.pack,
        ]
    )
)
test_dataloader = val_dataloader

optim_wrapper = dict(
    # 2e-5 for every 512 images.
    optimizer=dict(lr=2e-5, weight_decay=1e-8),
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
auto_scale_lr = dict(base_batch_size=512)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=25,
        eta_min_ratio=1e-2,
        by_epoch=True,
        begin=5,
        end=30,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=30)
