# End-to-end fine-tuning of the demo's checkpoint on its labels, with the pretraining's optimizer.
_base_ = '../map_hybrid-digits_1xb64-coslr-16e_digits-28px.py'

model = dict(
    _delete_=True,
    type='HybridClassifier',
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=96, layout='MMMT', num_heads=4),
        img_size=28,
        patch_size=4,
        out_type='avg_featmap',
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/epoch_16.pth', prefix='backbone.'),
    ),
    head=dict(type='LinearClsHead', num_classes=10),
    data_preprocessor=dict(num_classes=10, mean=[33.3] * 3, std=[78.6] * 3),
)

val_dataloader = _base_.query_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
val_cfg = {}
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = {}

optim_wrapper = dict(optimizer=dict(lr=1e-3, betas=(0.9, 0.999)))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=9, by_epoch=True, begin=1, end=10, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10)
# Those of the pretraining are not for a classifier.
custom_hooks = []
