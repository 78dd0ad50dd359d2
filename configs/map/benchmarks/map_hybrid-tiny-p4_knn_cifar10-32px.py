# kNN accuracy of a checkpoint pretrained on CIFAR-10.
_base_ = '../map_hybrid-tiny-p4_1xb256-coslr-200e_cifar10-32px.py'

test_dataloader = _base_.query_dataloader
test_cfg = dict(type='KNNLoop', bank_dataloader=_base_.bank_dataloader, k=20)
# The loop measures the accuracy; metrics of mmpretrain may be added.
test_evaluator = []
