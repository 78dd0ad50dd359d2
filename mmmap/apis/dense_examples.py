"""Samples with random labels for segmentors of mmseg and detectors of mmdet, and what such models compute in a test."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import TRANSFORMS
from mmengine.structures import PixelData
from torch import Tensor, nn

from mmmap.engine.config_parts import type_name, walk
from mmmap.utils.errors import UserError

# Steps of a pipeline of mmdet that load annotations.
_LOADING = ('LoadAnnotations', 'LoadPanopticAnnotations')


def is_detector(model: nn.Module) -> bool:
    """Whether a model is a detector of mmdet, which may not be installed."""
    return _inherits(model, 'mmdet', 'BaseDetector')


def is_segmentor(model: nn.Module) -> bool:
    """Whether a model is a segmentor of mmseg, which may not be installed."""
    return _inherits(model, 'mmseg', 'BaseSegmentor')


def _inherits(model: nn.Module, package: str, name: str) -> bool:
    return any(c.__name__ == name and c.__module__.split('.')[0] == package for c in type(model).__mro__)


def output_mode(model: nn.Module) -> str:
    """The mode of ``forward`` in which a model computes what a test does.

    The plain output of a detector lacks what its heads compute for each object, and some segmentors have none.
    """
    if is_detector(model):
        return 'predict'
    head: Any = getattr(model, 'decode_head', None)
    if not is_segmentor(model) or head is None:
        return 'tensor'
    needed = [p for p in inspect.signature(head.forward).parameters.values() if p.default is p.empty]
    return 'predict' if isinstance(head, nn.ModuleList) or len(needed) > 1 else 'tensor'


def sample_maker(model: BaseModel) -> Callable[[Config, BaseModel, tuple[int, int]], Any] | None:
    """The function that makes a data sample for a config, its model and a size (H, W) in pixels.

    None for models that are neither segmentors nor detectors.

    Raises:
        UserError: If the model needs more than images.
    """
    if not getattr(model, 'with_rpn', True):
        raise UserError(f'{type(model).__name__} takes proposals from files, which this tool has none of')
    return _detection_sample if is_detector(model) else _segmentation_sample if is_segmentor(model) else None


def _segmentation_sample(cfg: Config, model: BaseModel, size: tuple[int, int]) -> Any:
    """A sample of mmseg with a random class for each pixel."""
    classes = getattr(model, 'num_classes', None) or getattr(model.decode_head, 'num_classes', None)
    if classes is None:
        raise UserError(f'{type(model).__name__} has no num_classes, so that its labels are not known to this tool')
    labels = np.random.default_rng(0).integers(classes, size=size)
    results = dict(img=np.zeros((*size, 3), np.uint8), gt_seg_map=labels, img_shape=size, ori_shape=size)
    pack = TRANSFORMS.build(dict(type='mmseg.PackSegInputs', meta_keys=('img_shape', 'ori_shape')))
    sample = pack(results | dict(seg_fields=['gt_seg_map']))['data_samples']
    # Of the inner of classes, as some heads learn the edges between them.
    sample.set_data(dict(gt_edge_map=PixelData(data=torch.zeros(1, *size, dtype=torch.long))))
    sample.set_metainfo(dict(pad_shape=size))
    return sample


def _detection_sample(cfg: Config, model: BaseModel, size: tuple[int, int]) -> Any:
    """A sample of mmdet with one object: its box, and a mask and a class for each pixel if the training loads them."""
    height, width = size
    left, top, right, bottom = width / 4, height / 4, 3 * width / 4, 3 * height / 4
    outline = [left, top, right, top, right, bottom, left, bottom]
    thing = dict(bbox=[left, top, right, bottom], bbox_label=0, ignore_flag=0, mask=[outline])
    meta = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0), img_id=0, flip=False, flip_direction=None)
    results = dict(img=np.zeros((*size, 3), np.uint8), height=height, width=width, instances=[thing], **meta)
    loads = _loads(cfg)
    with_mask = loads.get('with_mask', False)
    load = TRANSFORMS.build(dict(type='mmdet.LoadAnnotations', with_mask=with_mask, box_type=None))
    pack = TRANSFORMS.build(dict(type='mmdet.PackDetInputs', meta_keys=tuple(meta)))
    sample = pack(load(results))['data_samples']
    sample.set_metainfo(dict(batch_input_shape=size, pad_shape=size, border=np.array([0, height, 0, width])))
    if loads.get('with_seg', False):
        # Some heads learn it at their own stride.
        share = loads.get('seg_scale', 1)
        side = [max(1, round(length * share)) for length in size]
        sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, *side, dtype=torch.long))
    return sample


def _loads(cfg: Config) -> dict:
    """What the training of a detector loads beside boxes. A config without a training loads masks."""
    steps = [step for _, step in walk(cfg.get('train_dataloader')) if isinstance(step, dict) and 'type' in step]
    found = {type_name(step['type']): step for step in steps}
    load = next((step for name, step in found.items() if name in _LOADING), None)
    loads = dict(with_mask=True) if load is None else dict(load)
    if 'Panoptic' in str(loads.get('type')):
        loads = dict(with_mask=True, with_seg=True) | loads
    if 'SegRescale' in found:
        loads['seg_scale'] = found['SegRescale'].get('scale_factor', 1)
    return loads


def set_initial_weights(model: BaseModel) -> None:
    """Give a model the weights that its training starts from, but none of files.

    Some detectors cannot compute anything before, as their parameters are memory that is not initialised.
    """
    for module in model.modules():
        if 'Pretrained' in str(getattr(module, 'init_cfg', None)):
            module.init_cfg = None
    logger = MMLogger.get_current_instance()
    level = logger.level
    # A line for each parameter otherwise.
    logger.setLevel('WARNING')
    try:
        model.init_weights()
    finally:
        logger.setLevel(level)


@torch.no_grad()
def keep_most_detections(model: BaseModel, inputs: Tensor | list[Tensor], samples: list) -> int | None:
    """Make a detector give as many detections as its ``test_cfg`` keeps at most, whatever its weights, in place.

    Untrained weights give scores below every threshold, so that nothing is left for a mask head to do. The thresholds
    of the scores are lowered to that of the last detection that ``max_per_img`` keeps, so that nothing else reaches the
    suppression of overlaps. The detections are computed once for this.

    Args:
        model (BaseModel): A detector.
        inputs (Tensor): Preprocessed images, (B, c, H, W).
        samples (list): Their data samples.

    Returns:
        int | None: The number of detections of an image, the mean if there are several; None if it gives no boxes.
    """
    thresholds = [
        part
        for module in model.modules()
        for part in _dicts(getattr(module, 'test_cfg', None))
        if isinstance(part.get('score_thr'), (int, float))
    ]
    for part in thresholds:
        part['score_thr'] = 0.0
    training = model.training
    found = [sample.get('pred_instances') for sample in model.eval()(inputs, samples, mode='predict')]
    model.train(training)
    if any(of_image is None or 'scores' not in of_image for of_image in found):
        return None
    scores = torch.cat([of_image.scores.float().flatten() for of_image in found])
    # Of equal scores all stay.
    last = max(0.0, float(scores.min()) * (1 - 1e-3)) if len(scores) else 0.0
    for part in thresholds:
        part['score_thr'] = last
    return round(len(scores) / len(found))


def _dicts(part: Any) -> list[dict]:
    """A config and those in it."""
    if isinstance(part, dict):
        return [part, *(inner for value in part.values() for inner in _dicts(value))]
    return [inner for value in part for inner in _dicts(value)] if isinstance(part, (list, tuple)) else []
