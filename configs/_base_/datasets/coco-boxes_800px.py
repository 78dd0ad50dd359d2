# As coco_800px.py, with boxes alone: for detectors without masks, and for annotations that have none.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

train_dataloader = dict(num_workers=4)
val_dataloader = dict(num_workers=4)
test_dataloader = dict(num_workers=4)
