# A classifier of the mean of the image tokens, behind the final norm, as MAE fine-tunes. Its backbone has no registers:
# it is the pretrained one.
model = dict(
    type='HybridClassifier',
    backbone=dict(type='MAPHybrid', arch='base', img_size=224, patch_size=16, out_type='avg_featmap'),
    head=dict(type='LinearClsHead', num_classes=1000),
)
