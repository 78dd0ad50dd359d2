# A classifier of register tokens, as in Mamba-R (arXiv 2405.14858): each is narrowed, all are joined and normalised.
model = dict(
    type='HybridClassifier',
    backbone=dict(type='MAPHybrid', arch='base', img_size=224, patch_size=16, out_type='registers'),
    # Mamba-R narrows by 1 for tiny, 2 for small, 4 for base, 8 for large; MAP by 8 for huge.
    neck=dict(type='RegisterNeck', reduction=4),
    head=dict(type='LinearClsHead', num_classes=1000),
)
