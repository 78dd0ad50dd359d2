"""Small runs of mmengine's Runner in which one step goes wrong, for the tests of the guard."""

import copy
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import Dataset

SIZE, BATCH = 12, 2


class Samples(Dataset):
    """Numbers with the names of files; those of `poison` hold a NaN."""

    def __init__(self, poison: tuple[int, ...] = ()) -> None:
        self.poison = poison

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> dict:
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        if index in self.poison:
            x[1] = float('nan')
        return dict(
            inputs=x, data_samples=BaseDataElement(metainfo=dict(img_path=f'img_{index}.png', sample_idx=index))
        )


class Net(BaseModel):
    """Batch norm, a weight that is used twice, and a loss with a part that is only logged."""

    def __init__(self, **changes) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)
        self.bad_loss = {}  # Iteration -> what to multiply the loss with.
        self.bad_constant = {}  # Iteration -> what to add to the loss, which no gradient knows of.
        self.calls = 0
        for name, value in changes.items():
            setattr(self, name, value)

    def features(self, x: Tensor) -> Tensor:
        return self.norm(self.body(x))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = torch.stack(inputs) if isinstance(inputs, (list, tuple)) else inputs
        loss = self.head(self.features(x).relu()).square().mean()
        factor = self.bad_loss.get(self.calls, 1.0)
        loss = loss + self.bad_constant.get(self.calls, 0.0)
        self.calls += 1
        return dict(loss_a=loss * factor, loss_b=0.1 * self.head.weight.abs().sum(), accuracy=loss.detach() * 0)


class BadGradient(Hook):
    """Puts a value into a gradient in some iterations, and remembers the state around them."""

    priority = 'VERY_LOW'

    def __init__(self, values: dict[int, float] | None = None) -> None:
        self.values = values or {}
        self.states: list[dict] = []
        self.handle = None

    def before_train(self, runner: Runner) -> None:
        self.runner = runner
        self.states = [state_of(runner)]
        weight = whole(runner).body.weight
        self.handle = weight.register_hook(self._spoil)

    def _spoil(self, grad: Tensor) -> Tensor:
        value = self.values.get(self.runner.iter)
        if value is None:
            return grad
        grad = grad.clone()
        grad.view(-1)[0] = value
        return grad

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.states.append(state_of(runner))


def whole(runner: Runner) -> nn.Module:
    return getattr(runner.model, 'module', runner.model)


def state_of(runner: Runner) -> dict[str, Tensor]:
    """Every tensor of the model, its averages and its optimizer, copied."""
    from mmmap.engine.skipped_steps import named_tensors

    averages = {
        f'hook{i}': hook.ema_model.state_dict() for i, hook in enumerate(runner.hooks) if hasattr(hook, 'ema_model')
    }
    optimizer = runner.optim_wrapper.state_dict()
    state = dict(model=whole(runner).state_dict(), averages=averages, optimizer=optimizer)
    return {name: copy.deepcopy(value) for name, value in named_tensors(state, '')}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of what differs, in a bit or in being there."""
    return [n for n in one.keys() | other.keys() if n not in one or n not in other or not torch.equal(one[n], other[n])]


def make_cfg(
    folder: Path,
    model: nn.Module | None = None,
    guard: dict | None = MappingProxyType({}),
    hooks: Sequence = (),
    poison: tuple[int, ...] = (),
    epochs: int = 1,
    **changes: Any,
) -> dict:
    """Arguments of a Runner: six iterations of two samples an epoch; `guard=None` leaves the guard out."""
    default_hooks = dict(
        checkpoint=dict(type='AtomicCheckpointHook', interval=1), logger=dict(type='LoggerHook', interval=1)
    )
    custom = [] if guard is None else [dict(type='NonFiniteGuardHook', **guard)]
    cfg = dict(
        model=model or Net(),
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=BATCH,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=Samples(poison),
            collate_fn=pseudo_collate,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=default_hooks,
        custom_hooks=[*hooks, *custom],
        default_scope='mmengine',
        experiment_name=f'guard_{folder.parent.name}_{folder.name}',
        log_level='WARNING',
    )
    return cfg | changes


def make_runner(*args: Any, **kwargs: Any) -> Runner:
    """A Runner of what `make_cfg` gives."""
    return Runner(**make_cfg(*args, **kwargs))
