"""A last batch of one sample is told before the training where the model cannot take it."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmmap.engine.last_batch_check import check_last_batch, last_batch_size
from mmmap.utils.errors import UserError


@pytest.mark.parametrize(
    ('samples', 'batch_size', 'whole', 'dropped'),
    [(10, 3, 1, 3), (9, 3, 3, 3), (2, 3, 2, 0), (1, 1, 1, 1), (3, 3, 3, 3), (0, 3, 0, 0)],
)
def test_size_of_the_last_batch(samples, batch_size, whole, dropped):
    assert last_batch_size(samples, batch_size, drop_last=False) == whole
    assert last_batch_size(samples, batch_size, drop_last=True) == dropped


class Model(BaseModel):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.calls = 0

    def forward(self, inputs, mode='loss'):
        self.calls += 1
        return dict(loss=self.layers(torch.stack(inputs) + torch.rand(())).mean())


VECTORS = (nn.Flatten(), nn.Linear(16, 2), nn.BatchNorm1d(2))


def _runner(tmp_path, layers, samples=7, by_epoch=True, **loader):
    settings = dict(batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True)) | loader
    return Runner(
        model=Model(*layers),
        work_dir=str(tmp_path),
        train_dataloader=settings | dict(dataset=[dict(inputs=torch.randn(1, 4, 4)) for _ in range(samples)]),
        train_cfg=dict(by_epoch=True, max_epochs=1) if by_epoch else dict(by_epoch=False, max_iters=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_scope='mmengine',
        experiment_name=f'last_batch_{tmp_path.name}',
    )


@pytest.mark.parametrize(
    ('layers', 'options', 'message'),
    [
        (VECTORS, {}, r'one sample \(7 samples per process, batch_size=3\).*train_dataloader.drop_last=True'),
        (VECTORS, dict(batch_size=1), 'batch_size to 2 or more'),
        (VECTORS, dict(samples=1), 'batch_size to 2 or more'),
        (VECTORS, dict(samples=2, drop_last=True), 'no batch in an epoch: 2 samples'),
        ((nn.Linear(4, 2),), dict(samples=2, drop_last=True), 'no batch in an epoch'),
        # A map that is pooled to one pixel.
        ((nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1)), {}, 'one sample'),
    ],
)
def test_what_would_stop_the_training_is_told(tmp_path, layers, options, message):
    with pytest.raises(UserError, match=f'train_dataloader: .*{message}'):
        check_last_batch(_runner(tmp_path, layers, **options))


@pytest.mark.parametrize(
    ('layers', 'options'),
    [
        (VECTORS, dict(samples=6)),
        (VECTORS, dict(samples=8)),
        (VECTORS, dict(drop_last=True)),
        # Sixteen pixels are enough for a variance.
        ((nn.BatchNorm2d(1),), {}),
        ((nn.Linear(4, 2),), {}),
        (VECTORS, dict(by_epoch=False, sampler=dict(type='InfiniteSampler'))),
    ],
)
def test_what_trains_is_left_alone(tmp_path, layers, options):
    runner = _runner(tmp_path, layers, **options)
    weights, state = {n: v.clone() for n, v in runner.model.state_dict().items()}, torch.random.get_rng_state()
    check_last_batch(runner)
    assert torch.equal(torch.random.get_rng_state(), state) and runner.model.calls == 0
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    runner.train()


def test_batch_norm_that_is_never_in_training_mode_is_no_matter(tmp_path):
    class Frozen(nn.BatchNorm1d):
        def train(self, mode=True):
            return super().train(False)

    check_last_batch(_runner(tmp_path, (nn.Flatten(), Frozen(16))))


def test_other_loops_have_no_last_batch():
    check_last_batch(SimpleNamespace(train_loop=object()))
