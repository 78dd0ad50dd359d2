"""The tools that take any config, on a config of every kind: they work, or name in one line the models they are for."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kinds import DENSE, KINDS, POINTS, SIZE, write_config
from mmengine.registry import DefaultScope
from PIL import Image

from mmmap.apis import build_model
from mmmap.engine.launch import read_config

REBUILDING = ('map', 'mae', 'ar', 'simmim', 'points')
OF_CLOUDS = ('points', 'point classifier', 'parts', 'scenes')
CLASSIFIERS = ('classifier', 'probe', 'point classifier')
FAST = ['--batch-size', 2, '--repeats', 1, '--threads', 1]


@pytest.fixture(params=KINDS)
def kind(request):
    package = DENSE.get(request.param, ('mmpretrain',))[0]
    if package != 'mmpretrain' and not all(importlib.util.find_spec(name) for name in ('mmcv._ext', package)):
        pytest.skip(f'needs {package} and mmcv with its operators')
    return request.param


@pytest.fixture
def config(kind, tmp_path, monkeypatch):
    """A config of the kind, and beside it a checkpoint, an image and a cloud."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)
    before = dict(DefaultScope._instance_dict)
    path = write_config(kind, tmp_path / 'tiny.py')
    torch.manual_seed(0)
    torch.save(dict(state_dict=build_model(read_config(path)).state_dict()), 'trained.pth')
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 36, 3), dtype='uint8')).save('image.png')
    np.save('cloud.npy', rng.uniform(size=(2 * POINTS, 3)))
    yield path
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


def refusal(run_tool, capsys, *arguments):
    """The one line that a tool ends with."""
    with pytest.raises(SystemExit) as end:
        run_tool(*arguments)
    assert end.value.code == 1
    printed = capsys.readouterr().err
    lines = [line for line in printed.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and printed.endswith(f'{lines[0]}\n') and 'Traceback' not in printed
    return lines[0]


def parts_of(kind, report):
    """The figures of each part of a model, and the size of its samples."""
    if kind == 'joint':
        return [(report['image'], [SIZE, SIZE]), (report['points'], [POINTS])]
    return [(report, [POINTS] if kind in OF_CLOUDS else [SIZE, SIZE])]


def test_flops(kind, config, run_tool):
    run_tool('analysis_tools/get_flops.py', config, '--json', 'flops.json')
    report = json.loads(Path('flops.json').read_text())
    state = torch.load('trained.pth')['state_dict']
    model = build_model(read_config(config))
    assert report['parameters'] == sum(p.numel() for p in model.parameters()) <= sum(v.numel() for v in state.values())
    for figures, size in parts_of(kind, report):
        assert figures['shape'] == size
        assert figures['flops'] == sum(part['flops'] for part in figures['parts'].values())
        for name in ('embedding', 'Mamba: scan', 'Transformer blocks'):
            assert figures['parts'][name]['flops'] > 0, name
        # Projections without norms are all in a part that has a name.
        assert figures['parts']['rest']['flops'] == 0 or kind in ('mocov3', 'points', *OF_CLOUDS)


@pytest.mark.parametrize('train', [False, True])
def test_throughput(kind, config, run_tool, capsys, train):
    options = [*FAST, '--warm-up', 0, '--json', 'out.json', *(['--train'] if train else [])]
    run_tool('benchmarks/benchmark_throughput.py', config, *options)
    report = json.loads(Path('out.json').read_text())
    printed = capsys.readouterr().out
    for figures, size in parts_of(kind, report):
        unit = 'images' if len(size) == 2 else 'clouds'
        assert figures['shape'] == size and figures[f'{unit}_per_second'] > 0
        assert f'{unit}/s' in printed and figures['peak_memory_mib'] > figures['resident_mib'] > 0
    views = '2 views of ' if train and kind == 'mocov3' else ''
    assert f'batch {views}2 x {POINTS if kind in OF_CLOUDS else SIZE}' in printed


def test_parts_of_a_step(kind, config, run_tool, capsys):
    arguments = ('benchmarks/benchmark_step.py', config, *FAST)
    # Each time it measures what the machine can do at most, which takes seconds.
    if kind in ('map', 'points'):
        run_tool(*arguments)
        assert ('clouds/s' if kind in OF_CLOUDS else 'images/s') in capsys.readouterr().out
    elif kind not in REBUILDING:
        assert 'benchmark_throughput.py --train times a step of any model' in refusal(run_tool, capsys, *arguments)


def test_reconstruction(kind, config, run_tool, capsys, tmp_path):
    files = dict(joint=('image.png', 'cloud.npy')).get(kind, ('cloud.npy' if kind in OF_CLOUDS else 'image.png',))
    arguments = ('visualization/reconstruct.py', 'trained.pth', *files, '--config', config, '--out', 'out.png')
    if kind in REBUILDING:
        run_tool(*arguments)
        assert 'of 1 ' in capsys.readouterr().out and (tmp_path / 'out.png').is_file()
    elif kind == 'joint':
        run_tool(*arguments)
        assert {'out_image.png', 'out_points.png'} <= {path.name for path in tmp_path.iterdir()}
        assert len(list((tmp_path / 'out_points').glob('0_cloud_*.ply'))) == 3
        assert 'none.png is missing' in refusal(run_tool, capsys, *arguments[:2], 'none.png', *arguments[4:])
    else:
        assert 'rebuilds nothing: give the config of the pretraining' in refusal(run_tool, capsys, *arguments)


def test_response_maps(kind, config, run_tool, capsys, tmp_path):
    arguments = ('analysis_tools/response_maps.py', config, 'trained.pth', 'image.png', '--out', 'out.png')
    if kind in OF_CLOUDS:
        assert 'has no MAPHybrid as its backbone: of other models' in refusal(run_tool, capsys, *arguments)
    else:
        run_tool(*arguments)
        assert (tmp_path / 'out.png').is_file() and 'half of the gradient' in capsys.readouterr().out


def test_confusion_matrix_and_scenes_of_other_models(kind, config, run_tool, capsys):
    if kind not in (*CLASSIFIERS, *DENSE):
        line = refusal(run_tool, capsys, 'analysis_tools/confusion_matrix.py', config, 'trained.pth')
        assert 'is no classifier of whole images or clouds' in line
    if kind != 'scenes':
        line = refusal(run_tool, capsys, 'visualization/segment_scenes.py', config, 'trained.pth', 'cloud.npy')
        assert 'labels no scenes: give the config of a SceneSegmentor' in line


@pytest.mark.parametrize('kind', ['map', 'points'], indirect=True)
def test_sizes_of_the_other_kind_are_refused(kind, config, run_tool, capsys):
    options, advice = (['--points', 9], 'with --shape') if kind == 'map' else (['--shape', 9, 9], 'with --points')
    for tool in ('analysis_tools/get_flops.py', 'benchmarks/benchmark_throughput.py'):
        assert refusal(run_tool, capsys, tool, config, *options).endswith(advice)
