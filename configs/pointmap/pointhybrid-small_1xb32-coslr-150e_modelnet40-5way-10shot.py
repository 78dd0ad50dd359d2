# Few-shot classification on ModelNet40 from the pretraining on ShapeNet-55: 5 classes, 10 shapes each. Other folds and
# sizes: --cfg-options, see ../_base_/datasets/modelnet40-fewshot_bs32_cls.py.
_base_ = [
    '../_base_/models/point-classifier_hybrid-small.py',
    '../_base_/datasets/modelnet40-fewshot_bs32_cls.py',
    '../_base_/schedules/point_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/map_pointhybrid-small_1xb128-coslr-300e_shapenet55/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    head=dict(num_classes={{_base_.way}}),
)

auto_scale_lr = dict(base_batch_size=32, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=140, by_epoch=True, begin=10, end=150, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=150, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(checkpoint=dict(interval=10, save_best='accuracy/top1'))
