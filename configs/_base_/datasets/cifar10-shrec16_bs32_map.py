# The training images of CIFAR-10 and the training shapes of SHREC-16, without their labels, in turn: a batch of images,
# a batch of shapes. An epoch has as many of either, each shape five times, and at each epoch other images.
image_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    # The images are RGB already.
    to_rgb=False,
)
points_preprocessor = dict(type='PointDataPreprocessor')

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='InTurnBatchSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ConcatDataset',
        # The shapes tell none.
        ignore_keys=['classes'],
        datasets=[
            dict(
                type='CIFAR10',
                data_root='data/cifar10',
                split='train',
                pipeline=[
                    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
                    dict(type='RandomFlip', prob=0.5),
                    dict(type='PackInputs'),
                ],
            ),
            dict(
                type='RepeatDataset',
                times=5,
                dataset=dict(
                    type='PointCloudArrays',
                    data_root='data',
                    ann_file='shrec16.npz',
                    keys=dict(points='points_train'),
                    pipeline=[
                        dict(type='PointsNormalize'),
                        dict(type='PointsSample', num_points=1024),
                        dict(type='PointsScaleTranslate'),
                        dict(type='PackPointInputs'),
                    ],
                ),
            ),
        ],
    ),
)
