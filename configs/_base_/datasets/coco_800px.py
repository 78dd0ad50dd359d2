# COCO 2017 (tools/dataset_converters/coco.py lays it out): 800 pixels on the short side, at most 1333 on the long one.
_base_ = 'mmdet::_base_/datasets/coco_instance.py'

train_dataloader = dict(num_workers=4)
val_dataloader = dict(num_workers=4)
test_dataloader = dict(num_workers=4)
