"""MAP under mmengine's Runner: its masks follow the run, through an interruption too."""

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmmap.models.selfsup.masking import MaskingStrategy


class Images(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=torch.full((3, 64, 64), index / 8), data_samples=index)


@pytest.fixture
def train(map_cfg, tmp_path, monkeypatch):
    """A function that trains for some iterations and gives the mask of each."""
    masks = []
    draw = MaskingStrategy.__call__

    def record(self, tokens):
        masks.append(draw(self, tokens)[0])
        return masks[-1], masks[-1][0].sum().item()

    monkeypatch.setattr(MaskingStrategy, '__call__', record)
    before = dict(MessageHub._instance_dict), dict(DefaultScope._instance_dict)

    def run(name: str, iterations: int, resume: bool = False, seed: int | None = 5) -> list[torch.Tensor]:
        masks.clear()
        # A new process knows nothing of the runs before.
        MessageHub._instance_dict.clear()
        runner = Runner(
            model=map_cfg(),
            work_dir=str(tmp_path / name),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                dataset=Images(),
                sampler=dict(type='InfiniteSampler', shuffle=False),
                collate_fn=dict(type='default_collate'),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False)),
            randomness=dict(seed=seed),
            resume=resume,
            experiment_name=f'{name}_{iterations}',
            log_level='ERROR',
        )
        runner.train()
        return list(masks)

    yield run
    for cls, instances in zip((MessageHub, DefaultScope), before, strict=True):
        cls._instance_dict.clear()
        cls._instance_dict.update(instances)


def test_masks_go_on_after_a_resume(train):
    whole = train('whole', 4)
    first, rest = train('parts', 2), train('parts', 4, resume=True)
    assert (len(whole), len(first), len(rest)) == (4, 2, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole, first + rest, strict=True))
    assert len(torch.stack(whole).flatten(1).unique(dim=0)) == 4


def test_runs_without_a_seed_differ(train):
    assert not torch.equal(train('one', 1, seed=None)[0], train('other', 1, seed=None)[0])
