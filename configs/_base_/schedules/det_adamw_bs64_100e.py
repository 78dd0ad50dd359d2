_base_ = './det_adamw.py'

# ViTDet's 100 epochs (arXiv 2203.16527): 250 iterations of warm-up, a tenth of the rate after 88.9 % and again after
# 96.3 % of the run.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=100, milestones=[89, 96], gamma=0.1),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=10)
# For `train.py --auto-scale-lr`.
auto_scale_lr = dict(base_batch_size=64, enable=False)
