"""Small data sets of boxes and of masks, and configs of runs of very small detectors and segmentors on them."""

import json
from contextlib import contextmanager
from copy import deepcopy
from itertools import count
from pathlib import Path
from unittest.mock import patch

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from mmmap.utils.errors import UserError

_RUNS = count()
NAMES = ('square', 'disc', 'star')


def write_coco(root: Path, names=NAMES, pictures=4, objects=2, segmentation=True, change=None, name='all.json') -> Path:
    """Pictures of noise and their annotations in COCO's format. ``change`` may change the content before it is written.

    Object number n of all has the category n modulo the number of names.
    """
    folder = root / 'images'
    folder.mkdir(parents=True, exist_ok=True)
    content = dict(images=[], annotations=[], categories=[dict(id=i + 1, name=name) for i, name in enumerate(names)])
    noise = np.random.RandomState(0)
    for index in range(pictures):
        Image.fromarray(noise.randint(0, 255, (64, 64, 3), np.uint8)).save(folder / f'{index}.jpg')
        content['images'].append(dict(id=index, file_name=f'{index}.jpg', width=64, height=64))
        for _ in range(objects):
            number = len(content['annotations'])
            x, y = noise.randint(0, 30, 2).tolist()
            entry = dict(id=number, image_id=index, category_id=number % len(names) + 1, bbox=[x, y, 30, 30], area=900)
            polygon = [x, y, x + 30, y, x + 30, y + 30, x, y + 30]
            entry |= dict(iscrowd=0) | (dict(segmentation=[polygon]) if segmentation else {})
            content['annotations'].append(entry)
    if change is not None:
        change(content)
    (root / name).write_text(json.dumps(content))
    return root


def write_masks(root: Path, labels=(0, 1, 2), pictures=4, split='train', mode='L') -> Path:
    """Pictures of noise, and masks with stripes of the labels."""
    noise = np.random.RandomState(0)
    for kind in ('images', 'masks'):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    for index in range(pictures):
        Image.fromarray(noise.randint(0, 255, (64, 64, 3), np.uint8)).save(root / 'images' / split / f'{index}.jpg')
        mask = np.tile(np.resize(np.repeat(labels, 8), 64), (64, 1))
        Image.fromarray(mask.astype(np.uint8)).convert(mode).save(root / 'masks' / split / f'{index}.png')
    return root


def _loader(dataset: dict, train: bool) -> dict:
    sampler = dict(type='DefaultSampler', shuffle=train)
    return dict(batch_size=2, num_workers=0, sampler=sampler, dataset=dataset)


def _run(root: Path, model: dict, scope: str, train: dict, val: dict, metric: dict) -> Config:
    return Config(
        dict(
            default_scope=scope,
            custom_imports=dict(imports=['mmmap'], allow_failed_imports=False),
            custom_hooks=[dict(type='mmmap.DenseCheckHook')],
            default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=1)),
            model=model,
            train_dataloader=_loader(train, True),
            val_dataloader=_loader(val, False),
            test_dataloader=_loader(val, False),
            val_evaluator=metric,
            test_evaluator=metric,
            train_cfg=dict(by_epoch=True, max_epochs=1, val_interval=1),
            val_cfg={},
            test_cfg={},
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
            randomness=dict(seed=0),
            work_dir=str(root / 'work'),
            log_level='INFO',
        )
    )


def detection_config(root: Path, masks: bool = True, names=NAMES, ann_file='all.json') -> Config:
    """A Mask R-CNN, or a Faster R-CNN, of some thousand weights on :func:`write_coco`."""
    import mmdet

    kind = 'mask' if masks else 'faster'
    file = Path(mmdet.__file__).parent / f'.mim/configs/_base_/models/{kind}-rcnn_r50_fpn.py'
    cfg = Config.fromfile(file)
    model = cfg.model
    model.backbone = dict(type='ResNet', depth=18, base_channels=4, norm_eval=False, style='pytorch')
    model.neck.update(in_channels=[4, 8, 16, 32], out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.roi_head.bbox_roi_extractor.out_channels = 8
    model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16, num_classes=len(names))
    model.test_cfg.rcnn.max_per_img = 20
    if masks:
        model.roi_head.mask_roi_extractor.out_channels = 8
        model.roi_head.mask_head.update(num_convs=1, in_channels=8, conv_out_channels=8, num_classes=len(names))
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=masks),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
    ]
    pack = dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
    flip = dict(type='RandomFlip', prob=0.5)
    dataset = dict(
        type='CocoDataset',
        data_root=f'{root}/',
        ann_file=ann_file,
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=tuple(names)),
    )
    steps = [*pipeline, flip, dict(type='PackDetInputs')]
    train = dataset | dict(filter_cfg=dict(filter_empty_gt=True), pipeline=steps)
    val = dataset | dict(test_mode=True, pipeline=[*pipeline, pack])
    metric = dict(type='CocoMetric', ann_file=f'{root}/{ann_file}', metric=['bbox', 'segm'] if masks else 'bbox')
    return _run(root, model, 'mmdet', train, val, metric)


def segmentation_config(root: Path, names=NAMES, **options) -> Config:
    """A small FCN on :func:`write_masks`. ``options`` are those of both data sets."""
    head = dict(type='FCNHead', in_channels=32, in_index=3, channels=8, num_convs=1, num_classes=len(names))
    preprocessor = dict(type='SegDataPreProcessor', size=(64, 64), pad_val=0, seg_pad_val=255)
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=preprocessor,
        backbone=dict(type='ResNet', depth=18, base_channels=4, norm_eval=False, style='pytorch'),
        decode_head=head,
        auxiliary_head=[head | dict(in_channels=16, in_index=2)],
        train_cfg={},
        test_cfg=dict(mode='whole'),
    )
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    flip = dict(type='RandomFlip', prob=0.5)
    dataset = dict(type='BaseSegDataset', data_root=str(root), metainfo=dict(classes=tuple(names))) | options
    train, val = (
        dataset | dict(data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'masks/{split}'), pipeline=steps)
        for split, steps in (('train', [*pipeline[:2], flip, *pipeline[2:]]), ('val', pipeline))
    )
    metric = dict(type='IoUMetric', iou_metrics=['mIoU'])
    return _run(root, model, 'mmseg', train, val, metric)


def build(cfg: Config) -> Runner:
    """A plain Runner of mmengine of a copy of a config."""
    cfg = Config(deepcopy(cfg._cfg_dict.to_dict()))
    cfg.experiment_name = f'dense_{next(_RUNS)}'
    with quick():
        return Runner.from_cfg(cfg)


@contextmanager
def quick():
    """Runs without what takes seconds: the config as text, the list of libraries, collecting garbage."""
    with (
        patch.object(Config, 'pretty_text', ''),
        patch.object(Runner, '_log_env'),
        patch('mmengine.dataset.base_dataset.gc.collect'),
    ):
        yield


class Started(Exception):
    """A run has come to its first iteration."""


class StopHook(Hook):
    """Stops a run before its first iteration."""

    priority = 'LOWEST'

    def before_train(self, runner):
        """Stop."""
        raise Started

    before_val = before_test = before_train


def findings(cfg: Config, run: str = 'train') -> tuple[str, str]:
    """The message with which a run ends before its first iteration, '' if it goes on, and its warnings, one a line."""
    runner, warnings = build(cfg), []
    runner.register_hook(StopHook())
    message = ''
    with quick(), patch.object(runner.logger, 'warning', warnings.append):
        try:
            getattr(runner, run)()
        except UserError as error:
            message = str(error)
        except Started:
            pass
    return message, '\n'.join(warnings)


def refusal(cfg: Config, run: str = 'train') -> str:
    """The message of :func:`findings`."""
    return findings(cfg, run)[0]
