# The training images of the car parts without labels, for detectors to start from.
_base_ = '../map_seg/map_hybrid-mini-p8_1xb32-coslr-200e_camvid-128px.py'

train_dataloader = dict(
    dataset=dict(
        data_root='data/carparts_coco',
        data_prefix='train/JPEGImages',
        pipeline=[
            # Detectors see half of this resolution: 128 x 128 pixels of it are a quarter of an image.
            dict(type='LoadRandomResizedCrop', scale=128, crop_ratio_range=(0.1, 0.6), interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    )
)
