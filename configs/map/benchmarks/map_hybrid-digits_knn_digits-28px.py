# kNN accuracy of the demo's checkpoint: 1,000 test digits by their 20 nearest neighbours among the 4,000 of training.
#   python tools/test.py configs/map/benchmarks/map_hybrid-digits_knn_digits-28px.py work_dirs/demo/epoch_16.pth
_base_ = '../map_hybrid-digits_1xb64-coslr-16e_digits-28px.py'

test_dataloader = _base_.query_dataloader
test_cfg = dict(type='KNNLoop', bank_dataloader=_base_.bank_dataloader, k=20)
# The loop measures the accuracy; metrics of mmpretrain may be added.
test_evaluator = []
