# The car parts with boxes alone: for detectors without masks, and for annotations that have none.
_base_ = './carparts_coco_256px.py'

train_pipeline = [
    dict(type='LoadAnnotations', with_bbox=True) if step['type'] == 'LoadAnnotations' else step
    for step in _base_.train_pipeline
]
test_pipeline = [
    dict(type='LoadAnnotations', with_bbox=True) if step['type'] == 'LoadAnnotations' else step
    for step in _base_.test_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
