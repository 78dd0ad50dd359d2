from types import SimpleNamespace

import pytest
from mmengine.logging import MMLogger
from torch import nn

from mmmap.engine.hooks import ClassNamesHook
from mmmap.utils.errors import UserError


class Head(nn.Linear):
    """Outputs of so many classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(2, num_classes)
        self.num_classes = num_classes


def runner(model: nn.Module, train: tuple | None, val: tuple | None = None, resume: bool = True) -> SimpleNamespace:
    def loop(classes: tuple | None) -> SimpleNamespace:
        dataset = SimpleNamespace(metainfo=dict(classes=classes))
        return SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset), evaluator=SimpleNamespace())

    loops = dict(train_loop=loop(train), val_loop=val and loop(val))
    return SimpleNamespace(
        model=model, cfg=dict(resume=resume, load_from='x.pth'), logger=MMLogger.get_current_instance(), **loops
    )


@pytest.mark.parametrize(
    'meta',
    [
        dict(dataset_meta=dict(classes=['a', 'b'])),
        dict(dataset_meta=dict(CLASSES=('a', 'b'))),
        dict(CLASSES=('a', 'b')),
    ],
)
def test_checkpoints_of_all_ages_name_their_classes(meta):
    run, hook = runner(nn.ModuleDict(dict(head=Head(2))), ('a', 'c')), ClassNamesHook()
    hook.after_load_checkpoint(run, dict(meta=meta, state_dict={}))
    with pytest.raises(UserError, match=r"^train_dataloader.dataset .* the checkpoint x.pth \(2\): 'c' unknown"):
        hook.before_train(run)


@pytest.mark.parametrize('meta', [None, {}, dict(dataset_meta=[dict(classes=['a'])]), dict(CLASSES='text')])
def test_checkpoints_without_names(meta):
    run, hook = runner(nn.ModuleDict(dict(head=Head(2))), ('a', 'c'), ('a', 'b')), ClassNamesHook()
    hook.after_load_checkpoint(run, dict(meta=meta, state_dict={}))
    with pytest.raises(UserError, match=r'^val_dataloader.dataset .* than train_dataloader.dataset'):
        hook.before_train(run)


def test_a_pretraining_may_go_on_with_other_folders():
    run, hook = runner(nn.ModuleDict(dict(head=nn.Linear(2, 2))), ('a', 'c'), ('d',)), ClassNamesHook()
    hook.after_load_checkpoint(run, dict(meta=dict(dataset_meta=dict(classes=['a', 'b'])), state_dict={}))
    hook.before_train(run)
