"""The report for GPUs, as far as a CPU can run it: the released code's way gives our loss, the checks notice errors."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

TOOLS = Path(__file__).parents[3] / 'tools/benchmarks'
TINY = Path(__file__).parents[1] / 'tiny_map.py'
CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def gpu_package(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


@pytest.fixture
def report(run_tool, tmp_path, tiny_map, capsys):
    """A function that runs the report on this CPU and returns what it printed and what it wrote."""

    def run(*arguments: object) -> tuple[str, dict]:
        files = ['--json', tmp_path / 'out' / 'x.json', '--plot', tmp_path / 'out' / 'x.png']
        small = ['--archs', tiny_map, '--batch-size', 2, '--steps', 1, '--runs', 2, '--no-compile']
        try:
            run_tool('benchmarks/gpu_report.py', '--device', 'cpu', *small, *files, *arguments)
        finally:
            printed = capsys.readouterr().out
        assert Image.open(files[3]).width > 500
        return printed, json.loads(files[1].read_text())

    return run


@pytest.mark.parametrize('way', ['inner', 'scan'])
def test_the_released_way_gives_our_loss_and_gradients(build_map, way):
    from gpu.common import count_parameters
    from gpu.released_way import ReleasedWay, plain_kernels

    model = build_map('MMMTM')
    other = ReleasedWay(model, way, plain_kernels())
    assert count_parameters(other) == count_parameters(model)
    images, mask = torch.randn(3, 3, 64, 64), other.draw_mask(3, 0.4)
    assert mask.sum(1).tolist() == [7, 7, 7]
    ours, theirs = model.reconstruct(images, mask).loss(), other(images, mask)
    assert theirs.item() == pytest.approx(ours.item(), abs=1e-6)
    ours.backward(), theirs.backward()
    assert all(parameter.grad is not None for parameter in other.parameters())
    for name in ('in_proj.weight', 'out_proj.weight'):
        a, b = (m.get_parameter(name).grad for m in (model.backbone.encoder.blocks[1].mixer, other.blocks[1]))
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-7)
    both = model.backbone.encoder.blocks[1].mixer.A_log.grad
    for index in range(2):
        torch.testing.assert_close(other.blocks[1].directions[index].A_log.grad, both[index], rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(other.mask_token.grad, model.neck.mask_token.grad, rtol=1e-3, atol=1e-7)


def test_the_released_way_drops_paths_where_we_do(build_map):
    from gpu.released_way import ReleasedWay, plain_kernels

    model = build_map('MMM')
    for block in (*model.backbone.encoder.blocks, model.backbone.encoder):
        block.drop_path.drop_prob = 0.5
    other = ReleasedWay(model.train(), 'scan', plain_kernels()).train()
    images, mask = torch.randn(4, 3, 64, 64), other.draw_mask(4, 0.5)
    torch.manual_seed(3)
    ours = model.reconstruct(images, mask).loss().item()
    torch.manual_seed(3)
    assert other(images, mask).item() == pytest.approx(ours, abs=1e-6)


def test_the_released_way_refuses_other_models(build_map):
    from gpu.released_way import ReleasedWay, plain_kernels

    with pytest.raises(ValueError, match='TM'):
        ReleasedWay(build_map('TM'), 'scan', plain_kernels())
    with pytest.raises(ValueError, match='fast'):
        ReleasedWay(build_map('MM'), 'fast', plain_kernels())


def test_scan_check(monkeypatch):
    from gpu import scan

    rows = scan.check_one('reverse', ['torch', 'missing'], (2, 3, 7), torch.bfloat16, CPU)
    assert rows[0]['passed'] and rows[0]['errors'].keys() == {'out', *scan.NAMES}
    assert 'missing' in rows[1]['failed']
    # A backend that is wrong in one gradient is found out.
    right = scan.selective_scan
    wrong = lambda *inputs, backend, **options: right(  # noqa: E731
        *[x.detach() if i == 3 and backend == 'torch' else x for i, x in enumerate(inputs)], backend=backend, **options
    )
    monkeypatch.setattr(scan, 'selective_scan', lambda *a, **k: wrong(*a, **k) + 0 * a[3].sum())
    rows = scan.check_one('forward', ['torch'], (2, 3, 7), torch.float32, CPU)
    assert not rows[0]['passed'] and rows[0]['errors']['B'] == 1
    summary = scan.summarise(rows)
    assert summary[0]['passed'] == 'NO' and summary[0]['worst'] == 'B at L = 7'
    assert scan.relative_error(torch.tensor([float('nan')]), torch.ones(1)) == float('inf')
    assert scan.relative_error(torch.tensor([3e-8]), torch.zeros(1)) == pytest.approx(3e-8)


def test_scan_with_flips_is_ours():
    from gpu import scan

    inputs = scan.make_inputs(2, 3, 9, torch.float32, CPU)
    flipping, leaves = scan.flipping_scan(scan.selective_scan, inputs)
    ours = scan.scan_of('both', 'torch')(inputs)
    torch.testing.assert_close(flipping(), ours)
    dout = torch.randn_like(ours)
    mine, theirs = torch.autograd.grad(ours, inputs, dout), torch.autograd.grad(flipping(), leaves, dout)
    torch.testing.assert_close(theirs[8], mine[1][:, 1])  # delta of the second direction
    torch.testing.assert_close(theirs[-1], mine[6])  # the gate


def test_least_bytes():
    from gpu import scan

    inputs = scan.make_inputs(2, 3, 9, torch.float32, CPU)
    moved = sum(inputs[i].nbytes for i in (0, 1, 3, 4, 6))
    out = inputs[6].nbytes
    assert scan.least_bytes(2, 3, 9, 4, False) == moved + out
    assert scan.least_bytes(2, 3, 9, 4, True) == 3 * moved + 2 * out
    assert all(batch >= 1 for batch, _, _ in scan.speed_shapes()) and len(scan.speed_shapes()) == 12


def test_scan_speed(monkeypatch, capsys):
    from gpu import scan

    interface = ModuleType('mamba_ssm.ops.selective_scan_interface')
    interface.selective_scan_fn = scan.selective_scan
    for name in ('mamba_ssm', 'mamba_ssm.ops'):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    scan_of = scan.scan_of
    monkeypatch.setattr(scan, 'scan_of', lambda direction, backend: scan_of(direction, 'torch'))
    monkeypatch.setattr(scan, 'speed_shapes', lambda: [(1, 3, 98)])
    saved = []
    args = Namespace(milliseconds=1, save=lambda: saved.append(1))
    report = dict(rates=dict(copy_gbytes=10.0))
    scan.scan_speed(args, report, CPU)
    rows = report['scan-speed']['rows']
    assert len(rows) == len(saved) == 2 and rows[0]['difference'] < 1e-6
    for row in rows:
        assert row['ratio_step'] == row['mamba_ssm_step'] / row['triton_step']
        assert 0 < row['triton_step_of_copy'] < 1
    assert '| pretraining | (1, 3, 98) | bfloat16 |' in capsys.readouterr().out


def test_work_is_counted_without_computing():
    from gpu.common import load_config
    from gpu.step import count_work

    parameters, flops = count_work(load_config('tiny'))
    # Weights that multiply each visible token once, twice that backward; the decoder's each token.
    assert parameters == pytest.approx(11.34e6, rel=0.001)
    assert 6 * 98 * 9e6 < flops < 1.4 * 6 * (98 * 9.33e6 + 196 * 2e6)


def test_matching_vit():
    from gpu.common import count_parameters
    from gpu.vit import matching_vit

    from mmmap.models.layers import HybridEncoder

    arch = matching_vit('small')
    with torch.device('meta'):
        hybrid = HybridEncoder(384, 'MMMT' * 8, num_heads=12)
        assert count_parameters(HybridEncoder(**arch)) == pytest.approx(count_parameters(hybrid), rel=0.002)
    assert set(arch['layout']) == {'T'} and 3 < arch['mlp_ratio'] < 5


def test_tables_and_ratios():
    from gpu import common, step

    table = common.format_table([dict(a=1.234, b='x'), dict(b='y')], dict(a='.1f', b=''))
    assert table.splitlines() == ['| a | b |', '|---|---|', '| 1.2 | x |', '| - | y |']
    rows = [
        {'model': 'm', 'way': step.EAGER, 'batch': 8, 'images/s': 30.0, 'peak_bytes': 6},
        {'model': 'm', 'way': step.EAGER, 'batch': 99, 'images/s': 90.0, 'peak_bytes': 60},
        {'model': 'm', 'way': step.RELEASED['inner'], 'batch': 8, 'images/s': 10.0, 'peak_bytes': 8},
        {'model': 'm', 'way': step.RELEASED['scan'], 'batch': 8, 'images/s': 20.0, 'peak_bytes': 12},
        {'model': 'm', 'way': step.COMPILED, 'failed': 'out of memory'},
    ]
    # Against the faster and against the smaller of the two.
    assert step.compare(rows) == [{'model': 'm', 'way': step.EAGER, 'batch': 8, 'images/s, x': 1.5, 'memory, x': 0.75}]


def test_a_run(report):
    sections = ['fixtures', 'sync', 'guard', 'step', 'vit', 'stability']
    printed, found = report('--sections', *sections, '--stability-steps', 3, '--stability-batch', 2)
    assert not found['errors'] and set(found['seconds']) == set(sections)
    assert {row['fixture'] for row in found['fixtures']['rows']} == {'map_a_64px_d48x6', 'map_d_lowscale_64px_d48x3'}
    assert all(row['passed'] == 'yes' for row in found['fixtures']['rows'])
    assert [row['way'] for row in found['step']['rows']] == [
        'mmmap, eager',
        'mmmap, eager, selective',
        'released way, inner',
        'released way, scan',
    ]
    for row in (*found['step']['rows'], *found['vit']['rows']):
        assert len(row['seconds']) == 2 and row['images/s'] > 0 and row['GPU ms'] > 0 and row['gflops_per_image'] > 0
    same = found['step']['same_loss']['tiny_map']
    assert abs(same['released way, inner']) < 1e-6 and abs(same['released way, scan']) < 1e-6
    assert found['vit']['archs']['tiny_map']['layout'].strip('T') == ''
    assert found['stability']['finite_losses'] == 3 and found['stability']['finite_weights']
    assert '| tiny_map | graph breaks | none |' in printed
    (row,) = found['guard']['rows']
    assert row['holds'] == 'yes' and 0.1 < row['ratio'] < 10 and len(row['seconds']['guarded']) == 6


def test_a_guard_that_lets_a_step_through_is_noticed(report, monkeypatch, tmp_path):
    from mmmap.engine.step_guard import StepGuard

    monkeypatch.setattr(StepGuard, '_clearly_finite', staticmethod(lambda *_: True))
    with pytest.raises(SystemExit):
        report('--sections', 'guard')
    assert 'does not hold' in json.loads((tmp_path / 'out/x.json').read_text())['errors']['guard']


def test_a_section_that_fails_does_not_take_the_others_along(report, tmp_path, capsys):
    sections = ['--sections', 'fixtures', 'stability', '--stability-steps', 2, '--stability-batch', 2]
    with pytest.raises(SystemExit) as stopped:
        report(*sections, '--fixtures', tmp_path)
    assert stopped.value.code == 1
    found = json.loads((tmp_path / 'out/x.json').read_text())
    assert 'no map_*.npz' in found['errors']['fixtures'] and found['stability']['steps'] == 2


def test_nan_is_noticed(report, monkeypatch, tmp_path):
    from gpu import checks

    monkeypatch.setattr(checks, 'generated_images', lambda n, size, device: torch.full((n, 3, *size), float('nan')))
    with pytest.raises(SystemExit):
        report('--sections', 'stability', '--stability-steps', 2, '--stability-batch', 2)
    assert '2 of 2 losses' in json.loads((tmp_path / 'out/x.json').read_text())['errors']['stability']


def test_images_of_a_folder(tmp_path):
    from gpu.checks import folder_images

    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 30, 3), dtype='uint8')
        Image.fromarray(pixels).save(tmp_path / f'{i}.png')
    images = folder_images(str(tmp_path), (16, 24), CPU)
    assert images.shape == (3, 3, 16, 24)
    assert images.mean().abs() < 1e-5 and images.std() == pytest.approx(1, abs=1e-2)
    with pytest.raises(FileNotFoundError, match='holds no'):
        folder_images(str(tmp_path / 'none'), (16, 24), CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_it_says_so(run_tool, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_tool('benchmarks/gpu_report.py')
    assert stopped.value.code == 2
    assert 'no CUDA device' in capsys.readouterr().err.splitlines()[-1]
