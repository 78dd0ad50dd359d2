import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mmengine
import pytest
import torch

from mmmap.engine.cpu_features import cpu_has_fast_bfloat16

ROOT = Path(__file__).parents[2]


def _scalars(work_dir):
    """The logged values of the newest run in a work directory, one dict an iteration."""
    newest = max(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for line in newest.read_text().splitlines()]


def _last_line(run_tool, capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        run_tool(*arguments)
    assert end.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert not any('Traceback' in line for line in lines), lines
    return lines[-1]


@pytest.mark.parametrize(
    ('options', 'culprit'),
    [
        (['model.backbone.num_register=12'], 'num_register'),
        (['model.backbone.arch=huuge'], 'huuge'),
        (['model.backbone.type=MAPHybird'], 'MAPHybird'),
        (['model.backbone.patch_size=7'], 'patch_size=7'),
        (['default_hooks.checkpoint.intervall=1'], 'intervall'),
        (['train_dataloader.dataset.data_root=/no/imagenet'], 'train_dataloader.dataset.data_root'),
        (['train_dataloader.dataset.data_prefix=train'], 'images/train'),
        (['train_dataloader.dataset.pipeline.0.type=LoadImgChecked'], 'LoadImgChecked'),
    ],
)
def test_mistakes_in_a_config_end_in_one_line(tiny_map, run_tool, capsys, options, culprit):
    line = _last_line(run_tool, capsys, 'train.py', tiny_map, '--work-dir', 'run', '--cfg-options', *options)
    assert line.startswith('error: ') and culprit in line


@pytest.mark.parametrize(
    ('arguments', 'culprit'),
    [
        (['train.py', 'no_config.py'], 'config file not found: no_config.py'),
        (['train.py', 'CONFIG', '--resume', 'no.pth'], 'checkpoint not found: no.pth'),
        (['train.py', 'CONFIG', '--auto-scale-lr'], 'auto_scale_lr.base_batch_size'),
        (['train.py', 'CONFIG', '--amp', '--cfg-options', 'optim_wrapper.type=ApexOptimWrapper'], 'ApexOptimWrapper'),
        (['test.py', 'CONFIG', 'no.pth'], 'no test_dataloader'),
    ],
)
def test_mistakes_on_the_command_line_end_in_one_line(tiny_map, run_tool, capsys, arguments, culprit):
    arguments = [str(tiny_map) if argument == 'CONFIG' else argument for argument in arguments]
    assert culprit in _last_line(run_tool, capsys, *arguments, '--work-dir', 'run')


def test_fresh_start_scaled_lr_and_amp_without_an_accelerator(tiny_map, run_tool, capsys, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('mixed precision stays on with an accelerator')
    options = ['train_cfg.max_epochs=1', 'auto_scale_lr.base_batch_size=1', 'experiment_name=fresh']
    arguments = ['--work-dir', 'run', '--resume', '--amp', '--auto-scale-lr', '--no-validate']
    run_tool('train.py', tiny_map, *arguments, '--cfg-options', *options)
    out = capsys.readouterr().out
    assert re.search(r'No checkpoint to resume from in run: training starts from the beginning', out)
    line = 'mixed precision stays, in bfloat16' if cpu_has_fast_bfloat16() else 'mixed precision is off'
    assert len(re.findall(line, out)) == 1
    scalars = _scalars(tmp_path / 'run')
    assert [line['step'] for line in scalars] == [1, 2, 3, 4]
    # A batch of 2 where the rate is for 1.
    assert scalars[0]['lr'] == pytest.approx(2e-3)


def test_killed_run_resumes_from_its_last_whole_checkpoint(tiny_map, run_tool, capsys, tmp_path):
    work_dir = tmp_path / 'run'
    command = [sys.executable, ROOT / 'tools/train.py', tiny_map, '--work-dir', work_dir]
    options = ['train_cfg.max_epochs=100000', 'default_hooks.checkpoint.max_keep_ckpts=3']
    with open(tmp_path / 'out.txt', 'w') as out:
        process = subprocess.Popen([*command, '--cfg-options', *options], stdout=out, stderr=out)
        # It goes on writing checkpoints all the time: the kill hits it anywhere.
        deadline = time.monotonic() + 240
        while not (work_dir / 'epoch_3.pth').exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (tmp_path / 'out.txt').read_text()[-2000:]

    # Files are whole after the kill, and the pointer names one of them.
    checkpoints = {int(path.stem[6:]): path for path in work_dir.glob('epoch_*.pth')}
    named = Path((work_dir / 'last_checkpoint').read_text())
    assert named in checkpoints.values()
    for path in checkpoints.values():
        torch.load(path, weights_only=False)

    # A newer one that was cut off, as another writer would have left it, and a pointer to it.
    last = max(checkpoints)
    content = checkpoints[last].read_bytes()
    cut = work_dir / f'epoch_{last + 1}.pth'
    cut.write_bytes(content[: len(content) // 2])
    (work_dir / 'last_checkpoint').write_text(str(cut))
    before = _scalars(work_dir)
    epochs = [f'train_cfg.max_epochs={last + 1}', 'experiment_name=resumed']
    run_tool('train.py', tiny_map, '--work-dir', work_dir, '--resume', '--cfg-options', *epochs)
    out = capsys.readouterr().out
    assert f'{cut}, named in {work_dir / "last_checkpoint"}, is cut off' in out
    assert f'Resuming from {checkpoints[last]}' in out
    assert f'resumed epoch: {last}, iter: {4 * last}' in out
    after = _scalars(work_dir)
    assert [line['step'] for line in after] == [4 * last + step for step in (1, 2, 3, 4)]
    # Of these steps, those that the killed run had logged came out the same.
    same = {line['step']: line['loss'] for line in before}
    for line in after:
        assert line['loss'] == pytest.approx(same.get(line['step'], line['loss']), rel=1e-4)
    assert Path((work_dir / 'last_checkpoint').read_text()) == cut
    torch.load(cut, weights_only=False)


def test_checkpoint_of_another_arch_is_not_resumed(tiny_map, run_tool, capsys, tmp_path):
    run_tool('train.py', tiny_map, '--work-dir', 'run', '--cfg-options', 'train_cfg.max_epochs=1')
    capsys.readouterr()
    wider = ['model.backbone.arch.embed_dim=32', 'model.neck.in_dim=32', 'train_cfg.max_epochs=2']
    line = _last_line(run_tool, capsys, 'train.py', tiny_map, '--work-dir', 'run', '--resume', '--cfg-options', *wider)
    assert 'epoch_1.pth is a checkpoint of another model: ' in line and 'backbone' in line


def test_test_tool_writes_predictions_and_refuses_other_models(tiny_classifier, run_tool, capsys, tmp_path):
    from mmengine.config import Config

    from mmmap.registry import MODELS

    cfg = Config.fromfile(tiny_classifier)
    model = MODELS.build(dict(cfg.model, _scope_='mmpretrain'))
    # Always the second class: right for half of the images.
    model.head.fc.bias.data = torch.tensor([0.0, 100.0])
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'model.pth')
    run_tool('test.py', tiny_classifier, 'model.pth', '--work-dir', 'run', '--out', 'predictions.pkl')
    assert 'accuracy/top1: 50.0000' in capsys.readouterr().out
    predictions = mmengine.load(tmp_path / 'predictions.pkl')
    assert len(predictions) == 8
    assert {int(prediction['pred_label']) for prediction in predictions} == {1}

    other = ['--work-dir', 'run', '--cfg-options', 'model.head.num_classes=3']
    line = _last_line(run_tool, capsys, 'test.py', tiny_classifier, 'model.pth', *other)
    assert 'model.pth is a checkpoint of another model: size mismatch for head.fc.' in line
    assert 'no.pth' in _last_line(run_tool, capsys, 'test.py', tiny_classifier, 'no.pth', '--work-dir', 'run')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'model.pth').read_bytes()[:-100])
    line = _last_line(run_tool, capsys, 'test.py', tiny_classifier, 'cut.pth', '--work-dir', 'run')
    assert line == 'error: checkpoint is cut off: cut.pth'
    line = _last_line(run_tool, capsys, 'test.py', tiny_classifier, 'model.pth', '--work-dir', 'run', '--out', 'a.txt')
    assert line == 'error: --out: expected a .pkl file, got a.txt'


def test_two_processes_without_a_gpu_with_amp_and_a_broken_image(tiny_map, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('two processes would need two GPUs')
    broken = tmp_path / 'images' / 'cat' / '3.jpg'
    broken.write_bytes(broken.read_bytes()[:600])
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = os.environ | dict(PYTHON=sys.executable, PORT=str(port))
    for variable in ('LOCAL_RANK', 'PYTHONPATH'):
        environment.pop(variable)
    result = subprocess.run(
        [ROOT / 'tools/dist_train.sh', tiny_map, '2', '--work-dir', 'run'],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-3000:]
    assert 'gloo instead of nccl' in output
    wrapper = 'CPUAmpOptimWrapper' if cpu_has_fast_bfloat16() else 'OptimWrapper'
    assert f'AmpOptimWrapper -> {wrapper}' in output
    assert f'Skipped broken image {broken}' in output
    # Eight images, two a process: two steps an epoch instead of four.
    assert [line['step'] for line in _scalars(tmp_path / 'run')] == [1, 2, 3, 4]
    assert (tmp_path / 'run' / 'epoch_2.pth').is_file()
