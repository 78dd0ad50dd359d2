# The runtime of detectors: mmdet's names, its pictures of predictions (drawn where a config sets draw=True).
_base_ = './default_runtime.py'

default_scope = 'mmdet'
default_hooks = dict(
    visualization=dict(type='DetVisualizationHook', draw=False),
    # Ends a run on wrong geometry, classes or data before its first iteration, with one line.
    dense_check=dict(type='DenseCheckHook'),
)
visualizer = dict(type='DetLocalVisualizer', name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)

# With `tools/test.py --tta`: the boxes and masks of all views of an image, overlaps suppressed as in a test of one. The
# views have shares of the size of the test, and are mirrored as well if the training mirrors images.
tta_model = dict(type='InstanceTTAModel')
