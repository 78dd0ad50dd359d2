# kNN accuracy of a checkpoint pretrained on ImageNet-1K: the 50,000 validation images by their 20 nearest neighbours
# among the 1.28 M of training. Another size: --cfg-options model.backbone.arch=small model.neck.in_dim=384
_base_ = '../map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py'

labelled_pipeline = [
    dict(type='LoadImageChecked', on_error='raise'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
bank_dataloader = dict(
    batch_size=256,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=_base_.dataset_type, data_root=_base_.data_root, split='train', pipeline=labelled_pipeline),
)
test_dataloader = dict(
    batch_size=256,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=_base_.dataset_type, data_root=_base_.data_root, split='val', pipeline=labelled_pipeline),
)
test_cfg = dict(type='KNNLoop', bank_dataloader=bank_dataloader, k=20)
# The loop measures the accuracy; metrics of mmpretrain may be added.
test_evaluator = []
