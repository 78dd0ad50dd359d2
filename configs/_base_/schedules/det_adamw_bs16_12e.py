_base_ = './det_adamw.py'

# The 1x schedule, with Swin's learning rate for 16 images (arXiv 2103.14030, section 4.2), which is that of ViTDet.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
auto_scale_lr = dict(base_batch_size=16, enable=False)
