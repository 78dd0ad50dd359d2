"""Predictions and features of picture files, by models from configs."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmpretrain.models import ImageClassifier

from mmmap.datasets.folder_listing import list_images
from mmmap.engine.checkpoint_files import check_checkpoint_file
from mmmap.engine.config_parts import dense_kind
from mmmap.evaluation.frozen_features import pooled_feature
from mmmap.utils.errors import UserError
from mmmap.utils.origin_mark import Origin
from mmmap.utils.safe_load import load_checkpoint

from .model_loading import build_model, load_weights

#: What a function of this module tells of a file that cannot be used.
Report = Callable[[str, Exception], None]


def find_pictures(inputs: Sequence[str]) -> list[tuple[str, str]]:
    """Picture files, and those in folders and all folders below them, each with a name for its results.

    Args:
        inputs (Sequence[str]): Files and folders.

    Returns:
        list[tuple[str, str]]: The path of each file and its name: relative to its folder, or that of the file; the
        whole path, without the first slash, if two would have one name.

    Raises:
        UserError: If a file or folder is missing, or nothing is found.
    """
    found = []
    for given in inputs:
        if Path(given).is_dir():
            listing = list_images(given)
            found += [(str(Path(given, name)), name) for names in listing.images.values() for name in names]
        elif Path(given).is_file():
            found.append((given, Path(given).name))
        else:
            raise UserError(f'{given}: there is no such file or folder')
    if not found:
        raise UserError(f'no pictures in {", ".join(inputs)}')
    if len({name for _, name in found}) < len(found):
        # Of two folders, with files of one name. Results go below the output folder, never beside the pictures.
        return [(path, os.path.abspath(path).lstrip('/')) for path in dict.fromkeys(path for path, _ in found)]
    return found


def continue_results(mark: Path, cfg: Config, checkpoint: str, options: str = '') -> None:
    """Mark results as those of a model, so that a second run goes on only with the same one.

    Args:
        mark (Path): The file of the mark, beside the results.
        cfg (Config): The config of the model.
        checkpoint (str): Its checkpoint.
        options (str): What else the results depend on. Defaults to ''.

    Raises:
        UserError: If the results that are there are of another config, checkpoint or options, or the checkpoint is
            missing.
    """
    check_checkpoint_file(checkpoint)
    origin = Origin([checkpoint], f'{cfg.pretty_text}{options}')
    if not mark.exists():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_bytes(origin.mark())
    elif not origin.is_of(mark.read_bytes()):
        raise UserError(f'the results beside {mark} are of another config, checkpoint or options: name another --out')


def load_model(cfg: Config, checkpoint: str, device: str) -> BaseModel:
    """Build the model of a config, with the weights and the class names of a checkpoint, for inference.

    Raises:
        UserError: If the config has no model, or the checkpoint is missing or damaged.
    """
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model = load_weights(build_model(cfg), checkpoint).to(device)
    meta = load_checkpoint(checkpoint).get('meta') or {}
    model.dataset_meta = meta.get('dataset_meta') or {}
    return model


def classify(
    model: BaseModel, cfg: Config, paths: Sequence[str], batch_size: int, report: Report
) -> Iterator[tuple[str, np.ndarray]]:
    """Scores of pictures by a classifier, as a test by the config gives them.

    Args:
        model (BaseModel): A classifier with its weights.
        cfg (Config): Its config. The pipeline is that of ``test_dataloader``.
        paths (Sequence[str]): Picture files.
        batch_size (int): Pictures at a time.
        report (Report): Called with each file that cannot be read, which is left out.

    Yields:
        tuple[str, np.ndarray]: A path and its scores (K,), which sum to 1.

    Raises:
        UserError: If the model is no classifier, or the config has no test.
    """
    if not isinstance(model, ImageClassifier):
        raise UserError(f'{cfg.filename}: {type(model).__name__} is no classifier')
    pipeline = _test_pipeline(cfg)
    waiting = iter(paths)
    while chunk := list(islice(waiting, batch_size)):
        read, samples = _read(pipeline, chunk, report)
        if samples:
            with torch.no_grad():
                results = model.test_step(default_collate(samples))
            yield from ((path, result.pred_score.cpu().numpy()) for path, result in zip(read, results, strict=True))


def features_of(
    model: BaseModel, cfg: Config, paths: Sequence[str], batch_size: int, report: Report
) -> Iterator[tuple[str, np.ndarray]]:
    """Pooled features of pictures: the mean of the tokens, or what the neck of a classifier gives.

    Args:
        model (BaseModel): A classifier or a pretraining model of images, with its weights.
        cfg (Config): Its config. The pipeline is that of ``test_dataloader``; without one, pictures are resized to
            cover the backbone's ``img_size`` and cropped at the centre.
        paths (Sequence[str]): Picture files.
        batch_size (int): Pictures at a time.
        report (Report): Called with each file that cannot be read, which is left out.

    Yields:
        tuple[str, np.ndarray]: A path and its feature (C,), float32.

    Raises:
        UserError: If the model has no backbone for images.
    """
    size = getattr(getattr(model, 'backbone', None), 'img_size', None)
    if size is None or not hasattr(model, 'extract_feat'):
        raise UserError(f'{cfg.filename}: {type(model).__name__} has no backbone for pictures')
    pipeline = _test_pipeline(cfg) if 'test_dataloader' in cfg else _plain_pipeline(size)
    waiting = iter(paths)
    while chunk := list(islice(waiting, batch_size)):
        read, samples = _read(pipeline, chunk, report)
        if samples:
            with torch.no_grad():
                inputs = model.data_preprocessor(default_collate(samples), False)['inputs']
                features = pooled_feature(model.extract_feat(inputs)).float().cpu().numpy()
            yield from zip(read, features, strict=True)


def _read(pipeline: Compose, paths: Sequence[str], report: Report) -> tuple[list[str], list[dict]]:
    """The files that can be read, and their samples."""
    read, samples = [], []
    for path in paths:
        try:
            samples.append(pipeline(dict(img_path=path)))
        except OSError as error:
            report(path, error)
        else:
            read.append(path)
    return read, samples


_LOAD = dict(type='LoadImageChecked', on_error='raise')


def _plain_pipeline(size: tuple[int, int]) -> Compose:
    height, width = size
    return Compose(
        [
            _LOAD,
            dict(
                type='mmpretrain.ResizeEdge', scale=max(size), edge='short', backend='pillow', interpolation='bicubic'
            ),
            dict(type='mmpretrain.CenterCrop', crop_size=(width, height)),
            dict(type='mmpretrain.PackInputs'),
        ]
    )


def _test_pipeline(cfg: Config) -> Compose:
    """The pipeline of the test, with a loader in front if the data set has its pictures in memory."""
    dataset: Any = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'pipeline' not in dataset:
        raise UserError(f'{cfg.filename} has no test_dataloader with a pipeline: give the config of the classifier')
    steps = list(dataset['pipeline'])
    if any('Load' in str(step['type']) for step in steps):
        # A truncated file is an error here, not grey pixels.
        steps = [_LOAD if step['type'] == 'LoadImageFromFile' else step for step in steps]
    else:
        steps.insert(0, _LOAD)
    return Compose(steps)


def dense_predictor(cfg: Config, checkpoint: str, device: str, score_thr: float) -> Callable[[str, Path], None]:
    """A function that writes a picture with the predictions of a detector or segmentor, and the predictions.

    Args:
        cfg (Config): The config of a model of mmdet or mmseg.
        checkpoint (str): Its checkpoint, which also names the classes.
        device (str): Such as 'cpu'.
        score_thr (float): Lowest score of a detection that is drawn.

    Returns:
        Callable[[str, Path], None]: Takes the path of a picture and a folder; writes ``vis/NAME`` and, for a detector
        ``preds/STEM.json``, for a segmentor ``pred/*.png`` with a label for each pixel. Raises an OSError for a picture
        that cannot be read.
    """
    load = Compose([_LOAD])
    check_checkpoint_file(checkpoint)
    options: Any
    if dense_kind(cfg) == 'detector':
        from mmdet.apis import DetInferencer

        infer = DetInferencer(cfg, checkpoint, device=device, show_progress=False)
        options = dict(pred_score_thr=score_thr, no_save_pred=False)
    else:
        from mmseg.apis import MMSegInferencer

        infer = MMSegInferencer(cfg, checkpoint, device=device)
        infer.show_progress = False
        options = {}

    def predict(path: str, folder: Path) -> None:
        load(dict(img_path=path))  # Raises for what the inferencers would fill with grey.
        infer(path, out_dir=str(folder), **options)

    return predict
