"""The part of a config that an error comes from, when it is built, when it runs, and when it ran in a worker."""

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS, TRANSFORMS
from mmengine.runner import Runner

from mmmap.engine.error_report import explain


class Part(torch.nn.Module):
    def __init__(self, width: int = 1, fail: bool = False) -> None:
        super().__init__()
        # A parameter for the optimizer; another width than a number is an error here.
        self.weight = torch.nn.Parameter(torch.ones(1) * width)
        self.fail = fail

    def forward(self, x):
        if self.fail:
            raise ValueError('failed in forward')
        return (self.weight * x).mean()


class Owner(BaseModel):
    def __init__(self, first: dict, second: dict) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList([MODELS.build(first), MODELS.build(second)])

    def forward(self, inputs, mode='loss'):
        return dict(loss=sum(part(torch.stack(inputs)) for part in self.parts))


class Shift(BaseTransform):
    def __init__(self, by: float = 0.0) -> None:
        self.by = by

    def transform(self, results):
        if self.by > 1:
            raise RuntimeError('shift,\nfar too much')
        return dict(inputs=results['inputs'] + self.by)


class Numbers(torch.utils.data.Dataset):
    def __init__(self, pipeline: list, size: int = 4) -> None:
        self.transforms = [TRANSFORMS.build(step) for step in pipeline]
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        results = dict(inputs=torch.tensor(float(index)))
        for transform in self.transforms:
            results = transform(results)
        return results


class Ticks(Hook):
    def __init__(self, fail: bool = False) -> None:
        self.fail = fail

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.fail:
            raise ValueError('failed in a hook')


@pytest.fixture(scope='module', autouse=True)
def registered():
    classes = ((MODELS, Part), (MODELS, Owner), (TRANSFORMS, Shift), (DATASETS, Numbers), (HOOKS, Ticks))
    for registry, kind in classes:
        registry.register_module(name=f'Blame{kind.__name__}', module=kind)
        kind.__name__ = f'Blame{kind.__name__}'
    yield
    for registry, kind in classes:
        registry.module_dict.pop(kind.__name__)


@pytest.fixture
def message(tmp_path):
    """A function that trains a changed config and gives what is said of the error."""

    def run(**options):
        cfg = Config(
            dict(
                model=dict(type='BlameOwner', first=dict(type='BlamePart'), second=dict(type='BlamePart', width=1)),
                train_dataloader=dict(
                    batch_size=2,
                    num_workers=0,
                    sampler=dict(type='DefaultSampler'),
                    dataset=dict(
                        type='BlameNumbers', pipeline=[dict(type='BlameShift'), dict(type='BlameShift', by=1)]
                    ),
                ),
                train_cfg=dict(by_epoch=True, max_epochs=1),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
                param_scheduler=[dict(type='ConstantLR'), dict(type='LinearLR', start_factor=0.1)],
                custom_hooks=[dict(type='EmptyCacheHook'), dict(type='BlameTicks')],
                default_hooks=dict(checkpoint=None),
                default_scope='mmengine',
                experiment_name=f'blame_{np.random.default_rng().integers(1 << 60)}',
                work_dir=str(tmp_path),
            )
        )
        cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
        try:
            Runner.from_cfg(cfg).train()
        except Exception as error:
            return explain(error, cfg)
        return None

    return run


def test_nothing_is_wrong(message):
    assert message() is None


@pytest.mark.parametrize(
    ('options', 'start'),
    [
        # While a part is built.
        (dict(model__second__width='x'), 'model.second: TypeError: '),
        (dict(model__first__widht=1), 'model.first: TypeError: '),
        (
            dict(model__second__type='BlamePrat'),
            "model.second.type: 'BlamePrat' is not in the mmengine::model registry; did",
        ),
        (dict(model__thrid=dict(type='BlamePart')), 'model: TypeError: '),
        (dict(train_dataloader__dataset__pipeline__1__bx=1), 'train_dataloader.dataset.pipeline[1]: TypeError: '),
        (dict(train_dataloader__sampler__type='Smapler'), 'train_dataloader.sampler.type: '),
        (dict(train_dataloader__batch_size=0), 'train_dataloader: ValueError: '),
        (dict(optim_wrapper__optimizer__lr=-1.0), 'optim_wrapper.optimizer: ValueError: '),
        (dict(param_scheduler__1__start_factor=5), 'param_scheduler[1]: ValueError: '),
        (dict(custom_hooks__1__fial=True), 'custom_hooks[1]: TypeError: '),
        # While it runs; there are two of its type, and the first is as likely.
        (dict(model__second__fail=True), 'model.'),
        (dict(custom_hooks__1__fail=True), 'custom_hooks[1]: ValueError: failed in a hook'),
    ],
)
def test_the_part_is_named(message, options, start):
    text = message(**options)
    assert text is not None and text.startswith(start) and '\n' not in text, text


def test_values_that_do_not_fit_their_type_hints_are_told_beside_the_error(message):
    assert "(model.second.width: expected int, got 'x')" in message(model__second__width='x')


@pytest.mark.parametrize('workers', [0, 1])
def test_errors_of_workers_are_those_of_the_main_process(message, workers):
    text = message(train_dataloader__num_workers=workers, train_dataloader__dataset__pipeline__0__by=2.0)
    assert text == 'train_dataloader.dataset.pipeline[0]: RuntimeError: shift, far too much'


class BlameWithin(BaseTransform):
    """Calls another transform, which no part of the config has the class of."""

    def transform(self, results: dict) -> dict:
        return _Inner()(results)


class _Inner(BaseTransform):
    def transform(self, results: dict) -> dict:
        raise RuntimeError('failed within')


def test_a_method_that_all_transforms_inherit_blames_none_of_them(message):
    TRANSFORMS.register_module(module=BlameWithin, force=True)
    pipeline = [dict(type='BlameShift'), dict(type='BlameWithin')]
    text = message(train_dataloader__num_workers=1, train_dataloader__dataset__pipeline=pipeline)
    assert text == 'train_dataloader.dataset.pipeline[1]: RuntimeError: failed within'
