# Segmentation with mmsegmentation: bare type names are mmseg's and mmmap's, and steps are iterations.
_base_ = './default_runtime.py'

default_scope = 'mmseg'

default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False),
    # Off as in mmseg, whose hook draws every image of a test: `tools/test.py --show-dir DIR` turns it on.
    visualization=dict(type='SegVisualizationHook', draw=False),
    # Ends a run on wrong geometry, classes or data before its first iteration, with one line.
    dense_check=dict(type='DenseCheckHook'),
)
log_processor = dict(by_epoch=False)
visualizer = dict(_delete_=True, type='SegLocalVisualizer', vis_backends=_base_.vis_backends, name='visualizer')

# With `tools/test.py --tta`: the mean of the softmax over the views of an image, see `tta_ratios` of the data set.
tta_model = dict(type='SegTTAModel')
