import os
import signal
from contextlib import suppress

import pytest
import torch
from mmengine.config import Config

from mmmap.engine import error_report
from mmmap.engine.error_report import explain, missing_data, one_line_errors
from mmmap.utils.errors import UserError


def _config(dataset):
    return Config(dict(train_dataloader=dict(dataset=dataset), val_dataloader=None))


def test_missing_data_names_field_and_path(tmp_path):
    (tmp_path / 'train').mkdir()
    root = str(tmp_path)
    assert missing_data(_config(dict(data_root=root, data_prefix='train'))) is None
    assert missing_data(_config(dict(data_root=root, split='train'))) is None
    assert missing_data(_config(dict(data_root='s3://bucket/images'))) is None
    cases = {
        'train_dataloader.dataset.data_root': dict(data_root=root + '/absent'),
        'train_dataloader.dataset.data_prefix)': dict(data_root=root, data_prefix='absent'),
        'train_dataloader.dataset.data_prefix.img_path': dict(data_root=root, data_prefix=dict(img_path='absent')),
        'train_dataloader.dataset.split': dict(data_root=root, split='absent'),
        'train_dataloader.dataset.ann_file': dict(data_root=root, ann_file='absent'),
        'train_dataloader.dataset.dataset.data_root': dict(dataset=dict(data_root=root + '/absent')),
        'train_dataloader.dataset.datasets[1].data_root': dict(
            datasets=[dict(data_root=root), dict(data_root=root + '/absent')]
        ),
    }
    for field, dataset in cases.items():
        message = missing_data(_config(dataset))
        assert field in message and f'{root}/absent' in message


def test_explanations_are_one_line():
    assert explain(KeyError('MAPHybird is not in\n the registry')) == 'KeyError: MAPHybird is not in the registry'
    assert explain(UserError('what,\nwhere')) == 'what, where'
    try:
        assert not __name__
    except AssertionError as error:
        # Rewritten by pytest, so it has a message; a bare one must show its line.
        error.args = ()
        assert 'assert not __name__' in explain(error) and 'test_error_report.py' in explain(error)


@pytest.mark.parametrize(
    ('error', 'show', 'variable', 'traced'),
    [
        (ValueError('bad'), False, '0', False),
        (ValueError('bad'), True, '0', True),
        (ValueError('bad'), False, '1', True),
        (UserError('bad'), True, '0', False),
        (UserError('bad'), False, '1', True),
    ],
)
def test_last_line_and_traceback(capsys, monkeypatch, error, show, variable, traced):
    monkeypatch.setenv('MMMAP_TRACEBACK', variable)
    monkeypatch.delenv('RANK', raising=False)
    # Without a config there is no file for the traceback.
    with pytest.raises(SystemExit) as end, one_line_errors(show_traceback=show):
        raise error
    assert end.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith('error: ') and lines[-1].endswith('bad')
    assert any('Traceback' in line for line in lines) == traced
    assert traced or len(lines) == 1


def test_traceback_of_a_run_is_kept_in_its_work_directory(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv('RANK', '3')
    cfg = Config(dict(work_dir=str(tmp_path)))
    with pytest.raises(SystemExit), one_line_errors(cfg, show_traceback=True):
        raise ValueError('bad')
    kept = tmp_path / 'traceback_rank3.txt'
    assert capsys.readouterr().err == f'error (rank 3): ValueError: bad (traceback: {kept})\n'
    assert kept.read_text().startswith('Traceback') and "raise ValueError('bad')" in kept.read_text()


def test_control_c_is_one_line_and_its_own_status(capsys):
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err == 'error: interrupted\n'


class TwoArguments(Exception):
    """torch cannot make it again from its text, and raises RuntimeError instead."""

    def __init__(self, path, reason):
        super().__init__(f'{path}:\n{reason}')


ERRORS = {
    'value': lambda: ValueError('of sample 3'),
    'key': lambda: KeyError('of sample 3'),
    'lines': lambda: RuntimeError('of\n  sample\n3'),
    'user': lambda: UserError('of sample 3'),
    'two': lambda: TwoArguments('a.png', 'of sample 3'),
}
SAID = {
    'value': 'ValueError: of sample 3',
    'key': 'KeyError: of sample 3',
    'lines': 'RuntimeError: of sample 3',
    'user': 'of sample 3',
    'two': 'TwoArguments: a.png: of sample 3',
}


class Failing(torch.utils.data.Dataset):
    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if self.kind == 'killed':
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == 'chained':
            try:
                raise OSError('first')
            except OSError as error:
                raise ValueError('of sample 3') from error
        raise ERRORS[self.kind]()


def _raised(call):
    try:
        call()
    except Exception as error:
        return explain(error)
    raise AssertionError('nothing was raised')


@pytest.mark.parametrize('kind', [*ERRORS, 'chained'])
def test_errors_of_workers_are_those_that_were_raised(kind):
    loader = torch.utils.data.DataLoader(Failing(kind), num_workers=1)
    said = _raised(lambda: list(loader))
    assert said.strip("'") == SAID.get(kind, SAID['value']) or (kind == 'key' and said == "KeyError: 'of sample 3'")


def test_a_worker_that_is_killed_says_what_to_do():
    said = _raised(lambda: list(torch.utils.data.DataLoader(Failing('killed'), num_workers=1)))
    assert said.startswith('DataLoader worker (pid') and '\n' not in said
    assert 'out of memory' in said and 'num_workers' in said
    said = explain(RuntimeError('DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ...'))
    assert '/dev/shm' in said and 'Bus error' in said and 'It is possible' not in said


def test_a_worker_that_dies_with_a_batch_half_sent_is_named():
    code = compile('raise EOFError', 'torch/utils/data/dataloader.py', 'exec')
    assert 'DataLoader worker' in _raised(lambda: exec(code))


def test_nothing_interrupts_the_explanation(capsys, monkeypatch):
    def again(number, frame):
        raise RuntimeError('DataLoader worker (pid 7) is killed')

    def explain_slowly(error, cfg):
        os.kill(os.getpid(), signal.SIGCHLD)
        return str(error)

    monkeypatch.setattr(error_report, 'explain', explain_slowly)
    former = signal.signal(signal.SIGCHLD, again)
    try:
        with pytest.raises(SystemExit), one_line_errors():
            raise ValueError('the first')
    finally:
        signal.signal(signal.SIGCHLD, former)
    assert capsys.readouterr().err == 'error: the first\n'


def test_a_worker_that_dies_before_the_explanation_is_told(capsys, monkeypatch):
    said = 'DataLoader worker (pid 7) is killed by signal: Killed. '
    deaths = [RuntimeError(said)]

    def die(*exceptions):
        if deaths:
            raise deaths.pop()
        return suppress(*exceptions)

    # The first thing that the explanation calls.
    monkeypatch.setattr(error_report, 'suppress', die)
    with pytest.raises(SystemExit), one_line_errors():
        raise ConnectionResetError('the first')
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and 'worker' in line and 'killed' in line


def _fail_in_process(index):
    raise ValueError(f'in process\n{index}')


def test_errors_of_processes_are_those_that_were_raised():
    start = torch.multiprocessing.start_processes
    said = _raised(lambda: start(_fail_in_process, nprocs=1, start_method='fork'))
    assert said == 'ValueError: in process 0'


def test_the_end_of_another_process_is_said_where_there_are_others(monkeypatch):
    error = RuntimeError('[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3')
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert explain(error).startswith('another process of this run ended first')
    monkeypatch.setenv('WORLD_SIZE', '1')
    assert explain(error).startswith('RuntimeError: [gloo')


def test_what_mmengine_puts_before_an_error_goes():
    text = 'class `A` in mmpretrain/models/a.py: class `B` in mmpretrain/b.py: unexpected argument'
    assert explain(TypeError(text)) == 'TypeError: unexpected argument'
