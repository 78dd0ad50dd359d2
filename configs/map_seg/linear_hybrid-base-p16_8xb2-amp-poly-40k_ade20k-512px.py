# A linear probe of the pixels: one 1x1 convolution on the last map of the frozen backbone, its logits resized to the
# image. The figures are those of the released configs of DINOv2's linear evaluation on ADE20K (arXiv 2304.07193).
_base_ = './upernet_hybrid-base-p16_8xb2-amp-poly-160k_ade20k-512px.py'

model = dict(
    backbone=dict(out_indices=-1, frozen_stages='all', drop_path_rate=0.0),
    neck=None,
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=768,
        in_index=0,
        # No layers before the classifier.
        num_convs=0,
        channels=768,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=150,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
)

train_pipeline = [t for t in _base_.train_pipeline if t['type'] != 'PhotoMetricDistortion']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=1e-4), paramwise_cfg=dict(layer_decay_rate=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=40000),
]
train_cfg = dict(max_iters=40000, val_interval=10000)
