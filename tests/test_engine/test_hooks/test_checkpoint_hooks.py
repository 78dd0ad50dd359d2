import errno
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from mmengine._strategy import SingleDeviceStrategy
from mmengine.hooks import Hook
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.registry import HOOKS, STRATEGIES
from mmengine.runner import FlexibleRunner, Runner
from torch import nn

from mmmap.engine.checkpoint_files import AtomicLocalBackend, damage_of, find_whole_checkpoint
from mmmap.engine.hooks import AtomicCheckpointHook, CheckpointFitHook
from mmmap.utils.errors import UserError


class _Linear(BaseModel):
    def __init__(self, width=2):
        super().__init__()
        self.backbone = nn.Linear(width, 1)
        self.register_buffer('count', torch.zeros(1))

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.backbone(inputs).sum()}


def _runner(work_dir, max_epochs=3, width=2, **checkpoint):
    return Runner(_Linear(width), **_options(work_dir, max_epochs, width, **checkpoint))


def _options(work_dir, max_epochs=3, width=2, **checkpoint):
    return dict(
        work_dir=str(work_dir),
        # A list of batches: each is one sample of the data set.
        train_dataloader=dict(
            batch_size=1,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=[{'inputs': torch.ones(width)}, {'inputs': torch.zeros(width)}],
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1, **checkpoint)),
        default_scope='mmengine',
        experiment_name=f'hooks_{Path(work_dir).parent.name}_{max_epochs}_{width}',
        log_level=logging.ERROR,
    )


def _files(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix != '.py')


def test_keeps_as_many_as_asked_and_no_temporary_file(tmp_path):
    _runner(tmp_path / 'run', max_keep_ckpts=2).train()
    assert _files(tmp_path / 'run') == ['epoch_2.pth', 'epoch_3.pth', 'last_checkpoint']
    assert all(damage_of(path) is None for path in (tmp_path / 'run').glob('*.pth'))
    assert find_whole_checkpoint(tmp_path / 'run')[0] == str(tmp_path / 'run' / 'epoch_3.pth')


def test_killed_while_writing_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    put = AtomicLocalBackend.put

    def killed(self, obj, filepath):
        if Path(filepath).name == 'epoch_2.pth':
            Path(f'{filepath}.tmp').write_bytes(obj[: len(obj) // 2])
            raise KeyboardInterrupt
        put(self, obj, filepath)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AtomicLocalBackend, 'put', killed)
        _runner(tmp_path / 'run', max_keep_ckpts=1).train()
    assert find_whole_checkpoint(tmp_path / 'run')[0] == str(tmp_path / 'run' / 'epoch_1.pth')

    runner = _runner(tmp_path / 'run', max_epochs=2, max_keep_ckpts=1)
    runner.resume(str(tmp_path / 'run' / 'epoch_1.pth'))
    assert (runner.epoch, runner.iter) == (1, 2)
    runner.train()
    assert _files(tmp_path / 'run') == ['epoch_2.pth', 'last_checkpoint']


@STRATEGIES.register_module()
class _FolderStrategy(SingleDeviceStrategy):
    """Writes a folder as sharded FSDP does, of one process."""

    def save_checkpoint(self, filename, **kwargs):
        Path(filename).mkdir()
        super().save_checkpoint(str(Path(filename, 'rank0.pth')), **kwargs)

    def load_checkpoint(self, filename, **kwargs):
        return super().load_checkpoint(str(Path(filename, 'rank0.pth')), **kwargs)


def _flexible_runner(work_dir, strategy='_FolderStrategy', resume=False, max_epochs=3, **checkpoint):
    options = _options(work_dir, max_epochs, **checkpoint)
    options['experiment_name'] += f'{strategy}_{work_dir.parent.name}'
    return FlexibleRunner(
        _Linear(), **options, strategy=dict(type=strategy), load_from=resume or None, resume=bool(resume)
    )


def _checkpoints(folder):
    return sorted(path.name for path in folder.glob('*.pth*'))


@pytest.mark.parametrize('strategy', ['_FolderStrategy', 'SingleDeviceStrategy'])
def test_files_and_folders_of_strategies(tmp_path, strategy, monkeypatch):
    run = tmp_path / 'run'
    _flexible_runner(run, strategy, max_keep_ckpts=2).train()
    assert _checkpoints(run) == ['epoch_2.pth', 'epoch_3.pth']
    assert (run / 'epoch_3.pth').is_dir() == (strategy == '_FolderStrategy')
    (run / 'epoch_4.pth.tmp').mkdir()  # A left-over of a killed process.
    path, _ = find_whole_checkpoint(run)
    assert path == str(run / 'epoch_3.pth')
    runner = _flexible_runner(run, strategy, path, 5, max_keep_ckpts=2)
    runner.train()
    assert (runner.epoch, runner.iter) == (5, 10)
    assert _checkpoints(run) == ['epoch_4.pth', 'epoch_5.pth']

    def stop(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(SingleDeviceStrategy, 'save_checkpoint', stop)
    with pytest.raises(UserError, match=r'epoch_6\.pth could not be written \(No space left on device\)'):
        _flexible_runner(run, strategy, str(run / 'epoch_5.pth'), 6, max_keep_ckpts=2).train()
    assert _checkpoints(run) == ['epoch_4.pth', 'epoch_5.pth']
    assert find_whole_checkpoint(run)[0] == str(run / 'epoch_5.pth')


def test_killed_before_the_retired_one_is_removed(tmp_path, monkeypatch):
    run = tmp_path / 'run'

    def killed(self, path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AtomicLocalBackend, 'remove', killed)
        _runner(run, max_keep_ckpts=1).train()
    assert _checkpoints(run) == ['epoch_1.pth', 'epoch_2.pth']
    runner = _runner(run, max_keep_ckpts=1)
    runner.resume(find_whole_checkpoint(run)[0])
    runner.train()
    assert _checkpoints(run) == ['epoch_3.pth']


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    run, write = tmp_path / 'run', os.fsync

    def full(descriptor):
        if os.readlink(f'/proc/self/fd/{descriptor}').endswith('epoch_2.pth.tmp'):
            raise OSError(errno.ENOSPC, 'No space left on device')
        write(descriptor)

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r'epoch_2\.pth could not be written'):
        patch.setattr(os, 'fsync', full)
        _runner(run, max_keep_ckpts=1).train()
    assert _files(run) == ['epoch_1.pth', 'last_checkpoint']
    assert damage_of(run / 'epoch_1.pth') is None


@pytest.mark.parametrize('harm', [Path.mkdir, lambda path: path.symlink_to('no/where'), lambda path: path.touch(0o000)])
def test_whatever_stands_for_last_checkpoint_a_run_goes_on(tmp_path, harm):
    run = tmp_path / 'run'
    run.mkdir()
    harm(run / 'last_checkpoint')
    _runner(run, max_keep_ckpts=1).train()
    assert (run / 'last_checkpoint').read_text() == str(run / 'epoch_3.pth')


def test_the_best_checkpoint_is_saved_beside(tmp_path):
    run = tmp_path / 'run'
    runner = _runner(run, max_keep_ckpts=1, save_best='acc', rule='greater')
    runner.register_hook(_Validate([0.1, 0.3, 0.2]), priority='LOWEST')
    runner.train()
    assert [name for name in _checkpoints(run) if 'best' not in name] == ['epoch_3.pth']
    assert [name for name in _checkpoints(run) if 'best' in name] == ['best_acc_epoch_2.pth']


def test_killed_while_writing_the_best_one_leaves_the_one_before(tmp_path, monkeypatch):
    put = AtomicLocalBackend.put

    def killed(self, obj, filepath):
        if Path(filepath).name == 'best_acc_epoch_2.pth':
            raise KeyboardInterrupt
        put(self, obj, filepath)

    run = tmp_path / 'run'
    runner = _runner(run, save_best='acc', rule='greater')
    runner.register_hook(_Validate([0.1, 0.3, 0.2]), priority='LOWEST')
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AtomicLocalBackend, 'put', killed)
        runner.train()
    assert [name for name in _checkpoints(run) if 'best' in name] == ['best_acc_epoch_1.pth']

    runner = _runner(run, max_epochs=4, save_best='acc', rule='greater')
    runner.register_hook(_Validate([0.1, 0.3, 0.2, 0.4]), priority='LOWEST')
    runner.resume(str(run / 'epoch_1.pth'))
    runner.train()
    assert [name for name in _checkpoints(run) if 'best' in name] == ['best_acc_epoch_4.pth']


@pytest.mark.parametrize('metric', ['acc', ['acc', 'other']])
def test_a_copied_run_leaves_the_best_one_of_the_original(tmp_path, metric):
    run, copy = tmp_path / 'run', tmp_path / 'copy'
    runner = _runner(run, save_best=metric, rule='greater')
    runner.register_hook(_Validate([0.1, 0.3, 0.2]), priority='LOWEST')
    runner.train()
    shutil.copytree(run, copy)
    runner = _runner(copy, max_epochs=4, save_best=metric, rule='greater')
    runner.register_hook(_Validate([0.1, 0.3, 0.2, 0.4]), priority='LOWEST')
    runner.resume(str(copy / 'epoch_3.pth'))
    runner.train()
    assert [name for name in _checkpoints(run) if 'best_acc' in name] == ['best_acc_epoch_2.pth']
    assert [name for name in _checkpoints(copy) if 'best_acc' in name] == ['best_acc_epoch_4.pth']


class _Validate(Hook):
    """Reports an accuracy to the checkpoint hook after each epoch, as a validation loop does."""

    def __init__(self, values):
        self.values = values

    def after_train_epoch(self, runner):
        hook = next(hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook))
        runner.train_loop._epoch += 1
        hook.after_val_epoch(runner, dict(acc=self.values[runner.epoch - 1], other=0.0))
        runner.train_loop._epoch -= 1


def test_misspelt_argument_is_named_at_once():
    with pytest.raises(TypeError, match="'intervall'"):
        HOOKS.build(dict(type='AtomicCheckpointHook', intervall=1))


@pytest.mark.parametrize(
    ('change', 'culprit'),
    [
        (lambda weights: weights.update({'backbone.weight': torch.zeros(1, 7)}), r'size mismatch for backbone\.weight'),
        (lambda weights: weights.pop('backbone.bias'), r'the checkpoint has no backbone\.bias'),
        (lambda weights: weights.update({'backbone.extra': torch.zeros(1)}), r'the model has no backbone\.extra'),
    ],
)
def test_checkpoint_of_another_model_is_refused(tmp_path, change, culprit):
    runner = _runner(tmp_path / 'run')
    runner.register_hook(CheckpointFitHook('other.pth'))
    weights = dict(_Linear().state_dict())
    change(weights)
    torch.save({'state_dict': weights}, tmp_path / 'other.pth')
    with pytest.raises(UserError, match=rf'other\.pth is a checkpoint of another model: {culprit}') as error:
        runner.load_checkpoint(str(tmp_path / 'other.pth'))
    assert '\n' not in str(error.value)


def test_complaint_of_the_model_itself_names_the_file(tmp_path, monkeypatch):
    runner = _runner(tmp_path / 'run')
    runner.register_hook(CheckpointFitHook('other.pth'))

    def complain(*args, **kwargs):
        raise ValueError('backbone: width 2, expected 3')

    monkeypatch.setattr(runner.model.backbone, '_load_from_state_dict', complain)
    torch.save({'state_dict': _Linear().state_dict()}, tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'other\.pth is a checkpoint of another model: backbone: width 2, expected 3'):
        runner.load_checkpoint(str(tmp_path / 'other.pth'))


def test_checkpoint_that_fits_is_loaded(tmp_path):
    runner = _runner(tmp_path / 'run')
    runner.register_hook(CheckpointFitHook('fits.pth'))
    weights = {f'module.{name}': value + 1 for name, value in _Linear().state_dict().items() if name != 'count'}
    # A part that the model does not have at all, as the decoder of a pretrained checkpoint.
    weights['decoder.weight'] = torch.zeros(3)
    torch.save({'state_dict': weights}, tmp_path / 'fits.pth')
    runner.load_checkpoint(str(tmp_path / 'fits.pth'))
    assert torch.equal(runner.model.backbone.weight.cpu(), weights['module.backbone.weight'])


def test_checkpoint_of_the_model_within_test_time_augmentation(tmp_path):
    class Augmented(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return data_samples_list

    runner = _runner(tmp_path / 'run')
    runner.model = Augmented(runner.model)
    runner.register_hook(CheckpointFitHook('fits.pth'))
    weights = {name: value + 1 for name, value in _Linear().state_dict().items()}
    torch.save({'state_dict': weights}, tmp_path / 'fits.pth')
    runner.load_checkpoint(str(tmp_path / 'fits.pth'))
    assert torch.equal(runner.model.module.backbone.weight.cpu(), weights['backbone.weight'])
    torch.save({'state_dict': dict(weights, **{'backbone.weight': torch.zeros(1, 7)})}, tmp_path / 'fits.pth')
    with pytest.raises(UserError, match=r'size mismatch for backbone\.weight'):
        runner.load_checkpoint(str(tmp_path / 'fits.pth'))
