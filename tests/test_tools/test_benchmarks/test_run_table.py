"""``run_table.py``: what it composes, and a table of three rows that is killed, continued and reported."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_table
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmmap.engine.preemption import STOP_SIGNALS
from mmmap.utils.errors import UserError

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """A folder of 8 x 8 images, 20 + 6 of each of two classes."""
    root, generator = tmp_path_factory.mktemp('images'), np.random.default_rng(0)
    for part, number in (('train', 20), ('test', 6)):
        for name, channel in (('blue', 2), ('red', 0)):
            (root / part / name).mkdir(parents=True)
            for index in range(number):
                image = generator.integers(0, 60, (8, 8, 3), dtype='uint8')
                image[..., channel] += 150
                Image.fromarray(image).save(root / part / name / f'{index}.png')
    return root


@pytest.fixture
def table(monkeypatch):
    """The package beside the tool."""
    monkeypatch.syspath_prepend(str(tiny_table.BENCHMARKS))
    import table.compose
    import table.report
    import table.rows
    import table.run

    return table


def _request(table, data, **changes):
    return table.compose.Request('mini', data, **changes)


def _row(table, name, of='pretraining'):
    return next(row for row in table.rows.TABLES[of] if row.name == name)


@pytest.mark.parametrize('track', ['mini', 'small', 'full'])
def test_every_row_composes_to_what_can_be_built_and_is_found_again(table, tmp_path, track):
    from mmmap.registry import MODELS

    data = table.data.ConfigData(None, 'test')
    rows = {row.name: row for rows in table.rows.TABLES.values() for row in rows if track in row.recipes}
    for index, row in enumerate(rows.values()):
        evaluate = table.rows.EVALUATIONS if row.recipes[track].pretrain else ('finetune',)
        stages = table.compose.compose(row, 1, tmp_path / row.name, table.compose.Request(track, data, evaluate))
        assert [stage.name for stage in stages][-len(evaluate) :] == list(evaluate)
        for stage in stages:
            assert stage.cfg.randomness.seed == 1
        classifier = stages[0 if len(stages) == 1 else 1].cfg.model
        init_cfg = classifier.backbone.get('init_cfg')
        if row.recipes[track].pretrain is None:
            assert init_cfg is None
        else:
            theirs = stages[0].cfg.model.backbone
            assert init_cfg.checkpoint == str(stages[0].checkpoint) and init_cfg.prefix == 'backbone.'
            assert theirs.get('serialization') == classifier.backbone.get('serialization')
            assert theirs.arch == classifier.backbone.arch
        if track != 'full':
            with torch.device('meta'):
                model = MODELS.build({'_scope_': 'mmpretrain', **classifier})
            assert model.backbone.embed_dim == model.head.in_channels
        if 'knn' in evaluate:
            # The training images vote.
            bank, queries = (
                loader.dataset for loader in (stages[3].cfg.test_cfg.bank_dataloader, stages[3].cfg.test_dataloader)
            )
            differing = {key for key in bank if bank[key] != queries.get(key)}
            assert differing in ({'split'}, {'data_prefix'}), differing
            assert bank[differing.pop()] == 'train'
        if index == 0:
            for stage in stages:
                stage.write_config()
                assert stage.difference() is None


def test_backbone_settings_are_those_of_the_pretraining(table, images, tmp_path):
    tiny_table.write_configs(tmp_path)
    tiny_table.add_table(tmp_path)
    data = table.data.FolderData(images, 6, 'test', tmp_path / 'lists')
    options = dict(pretrain_options={'model.backbone.weight_init': 'released'}, epochs=(8, 6))
    pretrain, finetune = table.compose.compose(
        _row(table, 'map', 'tiny'), 3, tmp_path, _request(table, data, **options)
    )
    backbone = finetune.cfg.model.backbone
    assert backbone.arch == dict(embed_dim=32, layout='MTM', num_heads=4, d_state=4)
    assert backbone.weight_init == 'released'
    assert backbone.out_type == 'avg_featmap' and backbone.drop_path_rate == 0.1
    assert finetune.cfg.model.head == dict(type='LinearClsHead', num_classes=2)
    assert finetune.cfg.data_preprocessor.num_classes == 2
    # A schedule of 4 epochs, 1 of them warm-up.
    for stage, epochs in ((pretrain, 8), (finetune, 6)):
        warm_up, cosine = stage.cfg.param_scheduler
        assert (warm_up.begin, warm_up.end, cosine.begin, cosine.end) == (0, epochs / 4, epochs / 4, epochs)
        assert cosine.T_max == 3 * epochs / 4
        assert stage.epochs == epochs == stage.cfg.train_cfg.max_epochs
    # Red first, from a file as from CIFAR's arrays.
    init_default_scope('mmpretrain')
    from mmpretrain.registry import DATASETS

    data_set = DATASETS.build(finetune.cfg.val_dataloader.dataset)
    assert len(data_set) == 12 and list(data_set.metainfo['classes']) == ['blue', 'red']
    for sample in (data_set[0], data_set[11]):
        means = sample['inputs'].float().mean(dim=(1, 2))
        assert means.argmax() == (0 if sample['data_samples'].gt_label.item() == 1 else 2)


def _data_sets(part):
    if isinstance(part, dict):
        if 'pipeline' in part:
            yield part
        for value in part.values():
            yield from _data_sets(value)


@pytest.mark.parametrize('track', ['mini', 'small', 'full'])
def test_every_stage_takes_images_of_any_size_at_the_size_of_its_backbone(table, tmp_path, track):
    from mmpretrain.registry import DATASETS

    generator = np.random.default_rng(0)
    for part in ('train', 'test'):
        for name in 'ab':
            (tmp_path / part / name).mkdir(parents=True)
            # High, wide, small, and without colours.
            for index, shape in enumerate([(90, 40, 3), (30, 70, 3), (7, 9, 3), (64, 64)]):
                image = generator.integers(0, 256, shape, dtype='uint8')
                Image.fromarray(image).save(tmp_path / part / name / f'{index}.png')
    data, seen = table.data.FolderData(tmp_path, None, 'test', tmp_path / 'lists'), []
    rows = ['map'] + (['mocov3'] if track == 'mini' else [])
    for name in rows:
        request = table.compose.Request(track, data, table.rows.EVALUATIONS)
        for stage in table.compose.compose(_row(table, name), 0, tmp_path, request):
            init_default_scope('mmpretrain')
            size = stage.cfg.model.backbone.img_size
            for settings in _data_sets(stage.cfg.to_dict()):
                images = [sample['inputs'] for sample in DATASETS.build(settings)]
                views = [view for image in images for view in (image if isinstance(image, list) else [image])]
                assert len(views) >= 8 and {tuple(view.shape) for view in views} == {(3, size, size)}
                seen.append(stage.name)
    assert {'pretrain', 'finetune', 'linear', 'knn'} == set(seen) and len(seen) >= 9


def test_jobs_take_the_gpus_in_turn_and_trainings_are_compiled_as_asked(table, images, tmp_path):
    tiny_table.write_configs(tmp_path)
    tiny_table.add_table(tmp_path)
    from table.run import Launcher

    launcher = Launcher(compile='reduce-overhead', devices=('3', '5'))
    assert [launcher.environment(job)['CUDA_VISIBLE_DEVICES'] for job in range(3)] == ['3', '5', '3']
    # A training of several processes, or of a cluster, takes its own.
    for other in (Launcher(gpus=2, devices=('3', '5')), Launcher(slurm='part', devices=('3', '5')), Launcher()):
        assert other.environment(1).get('CUDA_VISIBLE_DEVICES') == os.environ.get('CUDA_VISIBLE_DEVICES')
    data = table.data.FolderData(images, 6, 'test', tmp_path / 'lists')
    request = _request(table, data, evaluate=('knn',))
    pretrain, knn = table.compose.compose(_row(table, 'map', 'tiny'), 0, tmp_path, request)
    assert launcher.command(pretrain)[-2:] == ['--compile', 'reduce-overhead']
    assert '--compile' not in launcher.command(knn)


@pytest.mark.parametrize(('gpus', 'slurm'), [(1, None), (2, None), (4, 'part')])
def test_trainings_are_started_through_the_launch_scripts(table, images, tmp_path, monkeypatch, gpus, slurm):
    tiny_table.write_configs(tmp_path)
    tiny_table.add_table(tmp_path)
    import table.run

    (tmp_path / 'bin').mkdir()
    for name in ('srun', 'python'):
        (tmp_path / 'bin' / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (tmp_path / 'bin' / name).chmod(0o755)
    monkeypatch.setattr(table.run.sys, 'executable', str(tmp_path / 'bin/python'))
    monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
    data = table.data.FolderData(images, 6, 'test', tmp_path / 'lists')
    request = _request(table, data, evaluate=('knn',), gpus=gpus)
    pretrain, knn = table.compose.compose(_row(table, 'map', 'tiny'), 0, tmp_path, request)
    launcher = table.run.Launcher(gpus, slurm)
    for stage, tool, rest in (
        (pretrain, 'train', ['--resume']),
        (knn, 'test', []),
    ):
        what = [str(stage.config_file)] + ([str(pretrain.checkpoint)] if tool == 'test' else [])
        lines = subprocess.run(
            launcher.command(stage), env=launcher.environment(), capture_output=True, text=True, check=True
        ).stdout.splitlines()
        kind = ['--launcher', 'slurm' if slurm else 'pytorch'] if gpus > 1 else []
        tail = [f'{ROOT}/tools/{tool}.py', *what, *kind, '--work-dir', str(stage.work_dir), *rest]
        assert lines[-len(tail) :] == tail
        if slurm:
            assert {'--partition=part', '--ntasks=4', f'--job-name={stage.name}'} < set(lines)
        elif gpus > 1:
            assert '--nproc_per_node=2' in lines


def test_scratch_gets_all_epochs_and_no_layer_decay(table):
    cfg = Config(
        dict(
            optim_wrapper=dict(paramwise_cfg=dict(layer_decay_rate=0.65)),
            train_cfg=dict(max_epochs=50, val_interval=5),
            param_scheduler=[dict(by_epoch=True, begin=0, end=1), dict(by_epoch=True, begin=1, end=50, T_max=49)],
            custom_hooks=[dict(type='KNNHook', interval=20)],
        )
    )
    table.compose.rescale(cfg, 10)
    # The warm-up is shorter than half an epoch: there is none.
    assert cfg.param_scheduler == [dict(by_epoch=True, begin=0, end=10, T_max=10)]
    assert cfg.train_cfg.val_interval == 1 and cfg.custom_hooks[0].interval == 4
    data = table.data.ConfigData(None, 'test')
    (short,) = table.compose.compose(_row(table, 'scratch'), 0, Path('x'), _request(table, data))
    (long,) = table.compose.compose(_row(table, 'scratch-long'), 0, Path('x'), _request(table, data))
    (chosen,) = table.compose.compose(_row(table, 'scratch-long'), 0, Path('x'), _request(table, data, epochs=(7, 3)))
    assert (short.epochs, long.epochs, chosen.epochs) == (50, 150, 10)
    for stage in (short, long, chosen):
        assert (stage.cfg.optim_wrapper.get('paramwise_cfg') or {}).get('layer_decay_rate', 1.0) == 1.0


def test_images_are_a_fixed_and_even_part(table, images, tmp_path):
    def lists(number, split):
        data = table.data.FolderData(images, number, split, tmp_path)
        return [path.read_text().splitlines() for path in (data.train_list, data.test_list)]

    train, test = lists(None, 'test')
    assert len(train) == 40 and len(test) == 12
    assert all((images / line.split(' ')[0]).is_file() for line in train + test)
    assert {line.split(' ')[1] for line in train if '/red/' in line} == {'1'}
    few, _ = lists(7, 'test')
    more, _ = lists(11, 'test')
    assert [sum(line.endswith(f' {label}') for line in few) for label in '01'] == [4, 3]
    assert set(few) < set(more) < set(train)
    kept, held_out = lists(None, 'val')
    assert sorted(kept + held_out) == sorted(train) and len(held_out) == 4
    assert set(lists(7, 'val')[0]) < set(kept) and lists(7, 'val')[1] == held_out
    with pytest.raises(UserError, match='class blue has 18 images, needs 50'):
        lists(100, 'val')
    with pytest.raises(UserError, match=r'no folders of classes in .*nothing/train'):
        table.data.FolderData(tmp_path / 'nothing', None, 'test', tmp_path)


def test_what_systems_leave_in_a_folder_is_no_class_and_no_image(table, images, tmp_path):
    shutil.copytree(images, tmp_path / 'images')
    images = tmp_path / 'images'
    clean = table.data.FolderData(images, None, 'test', tmp_path)
    for part in ('train', 'test'):
        image = (images / part / 'red/0.png').read_bytes()
        for path in ('.ipynb_checkpoints/0-checkpoint.png', '__MACOSX/red/0.png', 'red/._0.png', 'blue/notes.txt'):
            (images / part / path).parent.mkdir(parents=True, exist_ok=True)
            (images / part / path).write_bytes(image)
    data = table.data.FolderData(images, None, 'test', tmp_path)
    assert data.classes == ['blue', 'red']
    assert data._facts == clean._facts
    # All formats, at any depth.
    for path in ('train/red/more/yet/1.png', 'train/blue/2.webp', 'train/blue/3.GIF'):
        (images / path).parent.mkdir(parents=True, exist_ok=True)
        (images / path).write_bytes(image)
    data = table.data.FolderData(images, None, 'test', tmp_path)
    lines = data.train_list.read_text().splitlines()
    assert len(lines) == 43 and {'train/red/more/yet/1.png 1', 'train/blue/2.webp 0', 'train/blue/3.GIF 0'} < set(lines)


def test_classes_of_a_table_are_compared_by_name(table, images, tmp_path):
    from mmpretrain.registry import DATASETS

    shutil.copytree(images, tmp_path / 'images')
    images = tmp_path / 'images'
    shutil.rmtree(images / 'test/blue')
    (images / 'test/red/broken.png').write_bytes(b'no picture')
    data = table.data.FolderData(images, None, 'test', tmp_path)
    # Red stays the second class.
    assert {line.split(' ')[1] for line in data.test_list.read_text().splitlines()} == {'1'}
    (stage,) = table.compose.compose(_row(table, 'scratch'), 0, Path('x'), _request(table, data))
    test = {**stage.cfg.val_dataloader.dataset, 'pipeline': []}
    assert (test['leave_out_broken'], stage.cfg.train_dataloader.dataset.leave_out_broken) == (True, False)
    init_default_scope('mmpretrain')
    assert set(DATASETS.build(test).get_gt_labels()) == {1}
    (images / 'test/red').rename(images / 'test/Red')
    with pytest.raises(UserError, match="'Red' to evaluate on unknown to train, which has 'blue', 'red'"):
        table.data.FolderData(images, None, 'test', tmp_path)
    # Of a class of a few images one is held out.
    for path in sorted((images / 'train/red').iterdir())[2:]:
        path.unlink()
    held_out = table.data.FolderData(images, None, 'val', tmp_path).test_list.read_text().splitlines()
    assert [line.split(' ')[1] for line in held_out].count('1') == 1


def test_parts_of_the_configured_data(table):
    cfg = Config.fromfile(ROOT / 'configs/map/mini/finetune_hybrid-mini-p4_1xb256-coslr-50e_cifar10-32px.py')
    facts = table.data.ConfigData(1000, 'val').apply(cfg)
    assert facts == dict(train=1000, split='val')
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    assert (train.split, train.indices) == ('train', range(1000))
    assert (val.split, val.indices) == ('train', range(45000, 50000))
    cfg = Config.fromfile(ROOT / 'configs/map/map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py')
    with pytest.raises(UserError, match='ImageNet data set need --data'):
        table.data.ConfigData(1000, 'test').apply(cfg)


@pytest.mark.parametrize(
    ('arguments', 'culprit'),
    [
        (['pretraing'], "unknown table 'pretraing': choose from pretraining, masking, decoder, layout, sizes"),
        (['sizes', '--rows', 'size-big'], 'table sizes has size-tiny, size-small, size-base on the mini track'),
        (['pretraining', '--jobs', '0'], '--jobs 0: must be positive'),
        (['pretraining', '--first-seed', '-1'], '--first-seed -1: must not be negative'),
        (['pretraining', '--data', 'nowhere'], 'no folders of classes in'),
    ],
)
def test_mistakes_end_in_one_line(table, run_tool, capsys, tmp_path, arguments, culprit):
    with pytest.raises(SystemExit) as end:
        run_tool('benchmarks/run_table.py', *arguments, '--out', tmp_path / 'out')
    assert end.value.code == 1
    assert culprit in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('whom', ['the table', 'a training'])
def test_a_signal_stops_trainings_that_save_and_is_no_failure(
    table, images, run_tool, capsys, tmp_path, monkeypatch, whom
):
    tiny_table.write_configs(tmp_path)
    tiny_table.add_table(tmp_path)
    started, saved = tmp_path / 'started', tmp_path / 'saved'
    # What a training with PreemptionHook does.
    training = (
        'import os, pathlib, signal, sys, time\n'
        f'signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(saved)!r}).touch(), sys.exit(75)))\n'
        f'pathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n'
        'time.sleep(60)'
    )
    monkeypatch.setattr(table.run.Launcher, 'command', lambda self, stage: [sys.executable, '-c', training])

    def send() -> None:
        while not (started.exists() and started.read_text()):
            time.sleep(0.05)
        if whom == 'the table':
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            os.kill(int(started.read_text()), signal.SIGTERM)

    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        with pytest.raises(SystemExit) as end:
            run_tool('benchmarks/run_table.py', 'tiny', '--data', images, '--out', tmp_path / 'out', '--rows', 'map')
    finally:
        sender.join(1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    errors = capsys.readouterr().err
    assert end.value.code == 75, errors
    assert saved.exists() and 'failed' not in errors and 'same command goes on' in errors


def test_a_table_is_killed_continued_and_reported(table, images, run_tool, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    tiny_table.write_configs(tmp_path)
    out, runs = tmp_path / 'out', tmp_path / 'out' / 'runs'
    # Long enough to be killed in the middle.
    asked = ['tiny', '--data', images, '--out', out, '--epochs', 30, 2]
    command = [sys.executable, tiny_table.__file__, tmp_path, *asked, '--rows', 'scratch', 'map']
    with open(tmp_path / 'output.txt', 'w') as output:
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output, env=os.environ)
        deadline, pretraining = time.monotonic() + 240, runs / 'map/seed0/pretrain'
        while not list(pretraining.glob('epoch_*.pth')) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (tmp_path / 'output.txt').read_text()[-3000:]
    scratch = runs / 'scratch/seed0/finetune.json'
    before = scratch.stat().st_mtime_ns
    assert not (runs / 'map/seed0/pretrain.json').exists()

    # The training went down with its parent: nothing is written any more.
    time.sleep(1)
    last = max(int(path.stem[6:]) for path in pretraining.glob('epoch_*.pth'))
    time.sleep(0.5)
    assert last == max(int(path.stem[6:]) for path in pretraining.glob('epoch_*.pth')) < 30

    tiny_table.add_table(tmp_path)
    with pytest.raises(SystemExit) as end:
        run_tool('benchmarks/run_table.py', *asked, '--jobs', 2, '--evaluate', 'finetune', 'knn')
    captured = capsys.readouterr()
    assert end.value.code == 1, captured
    assert f'resumed epoch: {last}' in (runs / 'map/seed0/pretrain.log').read_text()
    assert scratch.stat().st_mtime_ns == before
    failed = 'failed: broken seed 0: pretrain: error: '
    (line,) = [line for line in captured.err.splitlines() if line.startswith(failed)]
    assert 'patch_size=3' in line and str(runs / 'broken/seed0/pretrain.log') in line

    results = json.loads((out / 'tiny/results.json').read_text())
    pretrained = results['runs']['map']['0']
    assert pretrained['pretrain']['epochs'] == 30 and pretrained['pretrain']['iterations'] == 150
    assert pretrained['pretrain']['losses'][-1][0] == 30 and pretrained['pretrain']['seconds'] > 0
    assert [epoch for epoch, _ in pretrained['finetune']['accuracies']] == [1, 2]
    assert pretrained['finetune']['accuracy'] == pretrained['finetune']['accuracies'][-1][1]
    assert 0 <= pretrained['knn']['accuracy'] <= 100
    summary = {row['name']: row for row in results['rows']}
    assert summary['scratch']['passes'] == 2 * 40 and summary['map']['passes'] == 32 * 40
    # The fine-tuning did start from the pretraining.
    assert 'Loads checkpoint' in (runs / 'map/seed0/finetune.log').read_text()
    report = (out / 'tiny/report.md').read_text()
    accuracy = f'{pretrained["finetune"]["accuracy"]:.2f}'
    assert f'| MAP | {accuracy} | {accuracy} |' in report and '| 84.9¹ | 30 + 2 | 40 | 1,280 |' in report
    assert 'broken seed 0: pretrain: error' in report and '`python tools/benchmarks/run_table.py tiny' in report
    for name in ('bars.png', 'curves.png'):
        assert Image.open(out / 'tiny' / name).width > 500

    # Seeds are counted from the one that is asked for, beside those that are there.
    with pytest.raises(SystemExit) as end:
        run_tool('benchmarks/run_table.py', *asked, '--rows', 'scratch', '--seeds', 1, '--first-seed', 2)
    assert end.value.code == 0 and sorted(path.name for path in (runs / 'scratch').iterdir()) == ['seed0', 'seed2']
    assert list(json.loads((out / 'tiny/results.json').read_text())['runs']['scratch']) == ['0', '2']
    assert scratch.stat().st_mtime_ns == before

    # The same again finds nothing to do; other settings are refused, or replace the runs they concern.
    stages = sorted(runs.rglob('*.json'))
    run = [*asked, '--rows', 'scratch', 'map']
    with pytest.raises(SystemExit) as end:
        run_tool('benchmarks/run_table.py', *run)
    assert end.value.code == 0 and sorted(runs.rglob('*.json')) == stages
    other = [*run, '--options-finetune', 'optim_wrapper.optimizer.lr=0.002']
    with pytest.raises(SystemExit) as end:
        run_tool('benchmarks/run_table.py', *other)
    line = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 1 and 'optim_wrapper.optimizer.lr was 0.001, is 0.002' in line and '--restart' in line


def test_progress_is_read_from_the_log(table, tmp_path):
    from table.progress import Progress, last_state
    from table.run import Launcher, Run, Runner

    cfg = Config(dict(train_cfg=dict(max_epochs=10)))
    stages = [table.compose.Stage(name, cfg, tmp_path) for name in ('pretrain', 'finetune')]
    assert last_state(stages[0]) is None
    stages[0].log_file.write_text(
        'starting\n11/23 18:00:00 - mmengine - INFO - Epoch(train)  [2][10/50]  lr: 1e-3  eta: 0:10:00  time: 0.1\n'
        '11/23 18:00:09 - mmengine - INFO - Epoch(train)  [3][25/50]  lr: 1.0e-03  eta: 1 day, 0:12:30  loss: 0.25\n'
        'Saving checkpoint at 3 epochs\n'
    )
    state = last_state(stages[0])
    assert state == dict(done=2.5, left=86400 + 750, loss='0.25')
    runner, run = Runner(Launcher()), Run('map', 0, stages)
    runner.running['x'] = run, stages[0], time.monotonic()
    # The fine-tuning is thought to take as long an epoch as what is known.
    assert Progress(runner, [run], 1).time_left({'x': state}) == pytest.approx(state['left'] * (1 + 10 / 7.5))


def test_stages_on_other_weights_are_thrown_away_with_them(table, images, tmp_path):
    from table.run import Run, refuse_other_settings

    tiny_table.write_configs(tmp_path)
    tiny_table.add_table(tmp_path)
    data = table.data.FolderData(images, None, 'test', tmp_path / 'lists')

    def run(**changes):
        request = _request(table, data, evaluate=('finetune', 'linear'), **changes)
        return Run('map', 0, table.compose.compose(_row(table, 'map', 'tiny'), 0, tmp_path / 'run', request))

    for stage in run().stages:
        stage.write_config()
        stage.result_file.write_text('{}')
    workers = run(pretrain_options={'train_dataloader.num_workers': 4})
    assert refuse_other_settings([workers], restart=False) == []
    changed = run(finetune_options={'optim_wrapper.optimizer.lr': 0.1})
    with pytest.raises(UserError, match=r'map seed 0: its finetune .*lr was 0.001, is 0.1'):
        refuse_other_settings([changed], restart=False)
    assert len(refuse_other_settings([changed], restart=True)) == 1
    assert [stage.result_file.is_file() for stage in changed.stages] == [True, False, True]
    changed = run(pretrain_options={'optim_wrapper.optimizer.lr': 0.1})
    (message,) = refuse_other_settings([changed], restart=True)
    assert message.startswith('map seed 0: starting pretrain again: optim_wrapper.optimizer.lr was 0.001')
    assert [stage.result_file.is_file() for stage in changed.stages] == [False, False, False]
