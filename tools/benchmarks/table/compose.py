"""Composes the configs of a row's stages from its recipe."""

import copy
import functools
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmmap.utils.errors import UserError

from .data import ConfigData, FolderData
from .rows import Recipe, Row
from .stage import Stage

ROOT = Path(__file__).resolve().parents[3]
# Arguments that the classifier's backbone sets itself; the others come from the pretraining.
_OWN_SETTINGS = {
    'type', 'out_type', 'out_indices', 'drop_path_rate', 'init_cfg', 'with_cp', 'frozen_stages', 'num_registers',
    'scan_backend',
}  # fmt: skip


def rescale(cfg: Config, epochs: int) -> None:
    """Rescale the schedule of a config in place, warm-up and intervals included.

    Args:
        cfg (Config): With a training by epochs.
        epochs (int): How long it is to take.
    """
    factor = epochs / cfg.train_cfg.max_epochs
    if factor == 1:
        return
    cfg.train_cfg.max_epochs = epochs
    for owner, key in _intervals(cfg):
        owner[key] = max(1, round(owner[key] * factor))
    schedulers = cfg.get('param_scheduler') or []
    kept = []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if scheduler.get('by_epoch', True):
            # A schedule that steps each iteration can begin and end within an epoch.
            number = float if scheduler.get('convert_to_iter_based') else round
            for key in ('begin', 'end', 'T_max'):
                if key in scheduler:
                    scaled = number(scheduler[key] * factor)
                    scheduler[key] = int(scaled) if scaled == int(scaled) else scaled
            if scheduler.get('begin', 0) == scheduler.get('end'):
                continue
        kept.append(scheduler)
    cfg.param_scheduler = kept


def _drop_empty_schedules(cfg: Config, images: int, gpus: int) -> None:
    """Drop warm-ups shorter than an iteration: mmengine refuses them."""
    length = -(-images // (cfg.train_dataloader.batch_size * gpus))
    cfg.param_scheduler = [
        scheduler
        for scheduler in cfg.get('param_scheduler') or []
        if not scheduler.get('convert_to_iter_based')
        or int(scheduler.get('begin', 0) * length) < int(scheduler.get('end', 10**9) * length)
    ]


def _intervals(cfg: Config) -> list[tuple[ConfigDict, str]]:
    found = [(cfg.train_cfg, key) for key in ('val_interval', 'val_begin') if key in cfg.train_cfg]
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    hooks = [checkpoint] if checkpoint.get('by_epoch', True) else []
    hooks += [hook for hook in cfg.get('custom_hooks') or [] if hook['type'] in ('KNNHook', 'ReconstructionHook')]
    return [*found, *((hook, 'interval') for hook in hooks if hook.get('interval', 0) > 0)]


def transfer_backbone(cfg: Config, pretraining: Config, checkpoint: Path) -> None:
    """Give a classifier the backbone of a pretraining, in place.

    Args:
        cfg (Config): Of the classifier.
        pretraining (Config): Of the pretraining.
        checkpoint (Path): Whose weights it starts from.
    """
    own, theirs = cfg.model.backbone, pretraining.model.backbone
    for key in {*own, *theirs} - _OWN_SETTINGS:
        if key in theirs:
            own[key] = copy.deepcopy(theirs[key])
        else:
            own.pop(key)
    own.init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.')


@dataclass(frozen=True)
class Request:
    """Settings of all rows.

    Args:
        track (str): One of ``TRACKS``.
        data (ConfigData | FolderData): The images.
        evaluate (tuple[str, ...]): Some of ``EVALUATIONS``.
        epochs (tuple[int, int], optional): Of pretraining and fine-tuning in place of those of the configs.
        pretrain_options (dict): Changed settings of the pretraining.
        finetune_options (dict): Changed settings of the fine-tuning.
        gpus (int): Processes of a training.
    """

    track: str
    data: ConfigData | FolderData
    evaluate: tuple[str, ...] = ('finetune',)
    epochs: tuple[int, int] | None = None
    pretrain_options: dict = field(default_factory=dict)
    finetune_options: dict = field(default_factory=dict)
    gpus: int = 1


@functools.cache
def _read(path: str) -> Config:
    if not (ROOT / path).is_file():
        raise UserError(f'config file not found: {path}')
    cfg = Config.fromfile(ROOT / path)
    if 'train_cfg' not in cfg or 'max_epochs' not in cfg.train_cfg:
        raise UserError(f'{path}: the tables need a training by epochs (train_cfg.max_epochs)')
    return cfg


def _load(path: str) -> Config:
    # Rows share the configs of fine-tuning and probe.
    return copy.deepcopy(_read(path))


def _finish(cfg: Config, name: str, base: str, row: Row, seed: int, folder: Path, request: Request) -> Stage:
    images = request.data.apply(cfg)
    if request.epochs is not None and images['train']:
        _drop_empty_schedules(cfg, images['train'], request.gpus)
    cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': seed}
    checkpoint = cfg.setdefault('default_hooks', {}).setdefault('checkpoint', dict(type='AtomicCheckpointHook'))
    # Only what a table needs, to save disk space
    checkpoint.update(max_keep_ckpts=1, save_last=True)
    # Stored in the config, so that another file counts as another setting.
    cfg.table = dict(row=row.name, stage=name, gpus=request.gpus, images=images)
    return Stage(name, cfg, folder, dict(row=row.name, seed=seed, stage=name, config=base, images=images))


def compose(row: Row, seed: int, folder: Path, request: Request) -> list[Stage]:
    """Compose the stages of a row, in order.

    Args:
        row (Row): The row.
        seed (int): Of all its trainings.
        folder (Path): Where its files go.
        request (Request): What is asked of it.

    Returns:
        list[Stage]: The pretraining, if the row has one, and the evaluations.

    Raises:
        UserError: If the row is not part of the track, or a config is missing.
    """
    if request.track not in row.recipes:
        raise UserError(f'row {row.name} is not part of the {request.track} track')
    recipe, stages, pretraining = row.recipes[request.track], [], None
    if recipe.pretrain is not None:
        pretraining = _load(recipe.pretrain)
        pretraining.merge_from_dict(recipe.options)
        if request.epochs is not None:
            rescale(pretraining, request.epochs[0])
        pretraining.merge_from_dict(request.pretrain_options)
        stages.append(_finish(pretraining, 'pretrain', recipe.pretrain, row, seed, folder, request))
    checkpoint = stages[0].checkpoint if stages else None
    if 'finetune' in request.evaluate:
        cfg = _finetuning(recipe, request)
        if pretraining is None:
            cfg.model.backbone.init_cfg = None
        else:
            transfer_backbone(cfg, pretraining, checkpoint)
        cfg.merge_from_dict(request.finetune_options)
        stages.append(_finish(cfg, 'finetune', recipe.finetune, row, seed, folder, request))
    if 'linear' in request.evaluate and pretraining is not None:
        cfg = _load(recipe.linear)
        transfer_backbone(cfg, pretraining, checkpoint)
        stages.append(_finish(cfg, 'linear', recipe.linear, row, seed, folder, request))
    if 'knn' in request.evaluate and pretraining is not None:
        cfg = _knn(_load(recipe.pretrain), pretraining, _load(recipe.linear))
        stages.append(_finish(cfg, 'knn', recipe.pretrain, row, seed, folder, request))
        stages[-1].tested = checkpoint
    return stages


def _knn(cfg: Config, pretraining: Config, probe: Config) -> Config:
    """A kNN evaluation of a pretrained model, on the data of its linear probe with test transforms."""
    cfg.model = copy.deepcopy(pretraining.model)
    cfg.test_dataloader = probe.test_dataloader
    bank = copy.deepcopy(probe.test_dataloader)
    bank.dataset = copy.deepcopy(probe.train_dataloader.dataset)
    for key in ('pipeline', 'test_mode'):
        if key in probe.test_dataloader.dataset:
            bank.dataset[key] = copy.deepcopy(probe.test_dataloader.dataset[key])
    # The default of mmengine makes lists.
    bank.setdefault('collate_fn', dict(type='default_collate'))
    cfg.test_cfg = dict(type='KNNLoop', bank_dataloader=bank)
    cfg.test_evaluator = []
    return cfg


def _finetuning(recipe: Recipe, request: Request) -> Config:
    cfg = _load(recipe.finetune)
    epochs = request.epochs[1] if request.epochs else cfg.train_cfg.max_epochs
    if recipe.extra_epochs is not None:
        epochs += request.epochs[0] if request.epochs else _load(recipe.extra_epochs).train_cfg.max_epochs
    rescale(cfg, epochs)
    paramwise = cfg.optim_wrapper.get('paramwise_cfg') or {}
    if recipe.pretrain is None and 'layer_decay_rate' in paramwise:
        # Layer decay keeps pretrained early layers; without pretraining it only slows them down.
        paramwise.layer_decay_rate = 1.0
    return cfg
