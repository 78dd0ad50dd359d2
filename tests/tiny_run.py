"""A training of milliseconds that draws random numbers everywhere: crops, flips, drop path, mixup."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmap.registry import DATASETS, HOOKS


class Interrupted(Exception):
    """Where a run was stopped."""


@DATASETS.register_module(force=True)
class TinyImages(BaseDataset):
    """Ten images of noise, or as many as asked for."""

    def __init__(self, count: int = 10, **kwargs) -> None:
        self.count = count
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """The images and their labels."""
        images = np.random.RandomState(7).randint(0, 255, (self.count, 24, 24, 3), np.uint8)
        return [dict(img=image, img_shape=(24, 24), gt_label=index % 3) for index, image in enumerate(images)]


@HOOKS.register_module(force=True)
class Witness(Hook):
    """Writes down the losses, rates and places of a run; interrupts it after an iteration, with a checkpoint."""

    priority = 'LOW'

    def __init__(self, stop_after: int | None = None, save: bool = True) -> None:
        self.stop_after, self.save = stop_after, save
        self.losses, self.rates, self.places, self.evaluated = {}, {}, {}, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """The rate that the step is taken with."""
        groups = runner.optim_wrapper.param_groups
        self.rates[runner.iter] = (groups if isinstance(groups, list) else next(iter(groups.values())))[0]['lr']

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Write down; stop as a preemption does."""
        self.losses[runner.iter] = outputs['loss'].item()
        self.places[runner.iter] = (runner.epoch, batch_idx)
        if runner.iter + 1 == self.stop_after:
            if self.save:
                meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
                runner.save_checkpoint(runner.work_dir, f'iter_{self.stop_after}.pth', meta=meta, by_epoch=False)
            raise Interrupted

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Write the metrics down."""
        self.evaluated.setdefault(runner.iter, []).append(metrics)


def config(
    work_dir: Path, iterations: int | None = None, workers: int = 0, persistent: bool = False, **changes
) -> Config:
    """The config of the run: three epochs of five batches, or so many iterations.

    Args:
        work_dir (Path): Where it writes.
        iterations (int, optional): Count iterations instead of epochs.
        workers (int): Of the loader.
        persistent (bool): Whether they outlive an epoch.
        **changes (object): Settings to merge, ``__`` for a dot.
    """
    pipeline = [dict(type='RandomResizedCrop', scale=16), dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
    by_epoch = iterations is None
    end = 3 if by_epoch else iterations
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            custom_imports=dict(imports=['mmmap'], allow_failed_imports=False),
            work_dir=str(work_dir),
            model=dict(
                type='ImageClassifier',
                data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=3),
                backbone=dict(
                    type='MAPHybrid',
                    arch=dict(embed_dim=16, layout='MT', num_heads=2, d_state=4),
                    img_size=16,
                    patch_size=8,
                    out_type='avg_featmap',
                    drop_path_rate=0.5,
                ),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
                train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)),
            ),
            train_dataloader=dict(
                batch_size=2,
                num_workers=workers,
                persistent_workers=persistent,
                sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
                collate_fn=dict(type='default_collate'),
                dataset=dict(type='TinyImages', pipeline=pipeline),
            ),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05)),
            param_scheduler=[
                dict(
                    type='LinearLR',
                    start_factor=0.1,
                    by_epoch=by_epoch,
                    end=1 if by_epoch else 4,
                    convert_to_iter_based=by_epoch,
                ),
                dict(
                    type='CosineAnnealingLR',
                    by_epoch=by_epoch,
                    begin=1 if by_epoch else 4,
                    end=end,
                    convert_to_iter_based=by_epoch,
                ),
            ],
            train_cfg=dict(by_epoch=True, max_epochs=3)
            if by_epoch
            else dict(by_epoch=False, max_iters=iterations, val_interval=1000),
            default_hooks=dict(
                resume=dict(type='ResumeHook'),
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(type='AtomicCheckpointHook', interval=1 if by_epoch else 1000, max_keep_ckpts=-1),
            ),
            custom_hooks=[dict(type='Witness')],
            randomness=dict(seed=0),
            visualizer=dict(type='UniversalVisualizer', vis_backends=[]),
        )
    )
    if not by_epoch:
        for scheduler in cfg.param_scheduler:
            del scheduler['convert_to_iter_based']
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()}, allow_list_keys=True)
    return cfg


def run(cfg: Config, resume: str | Path | None = None, stop_after: int | None = None, save: bool = True) -> tuple:
    """Train in this process.

    Args:
        cfg (Config): From :func:`config`.
        resume (str or Path, optional): The checkpoint to go on from.
        stop_after (int, optional): Iterations after which the run is interrupted.
        save (bool): Whether the interruption writes a checkpoint.

    Returns:
        tuple: The Runner and its :class:`Witness`.
    """
    cfg = cfg.copy()
    cfg.experiment_name = f'{Path(cfg.work_dir).name}-{np.random.SeedSequence().entropy}'
    cfg.custom_hooks[0].update(stop_after=stop_after, save=save)
    cfg.resume, cfg.load_from = resume is not None, None if resume is None else str(resume)
    # What the process drew before must not matter.
    torch.manual_seed(hash(cfg.experiment_name) % 1000)
    runner = Runner.from_cfg(cfg)
    try:
        runner.train()
    except Interrupted:
        assert stop_after is not None
    finally:
        # Workers that wait for the garbage collector are waited for, ten seconds in some cases.
        runner.train_loop.dataloader_iterator = runner.train_dataloader._iterator = None
    return runner, next(hook for hook in runner.hooks if isinstance(hook, Witness))


def weights(runner: Runner) -> dict:
    """Copies of the weights."""
    return {name: value.clone() for name, value in runner.model.state_dict().items()}
