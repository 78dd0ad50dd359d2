"""Segmentors under the training and test tools, on generated images laid out as CamVid and as ADE20K."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

from mmmap.engine.evaluation_options import enable_tta
from mmmap.registry import MODELS

ROOT = Path(__file__).parents[2]
HAS_MMSEG = all(importlib.util.find_spec(name) for name in ('mmcv._ext', 'mmseg'))
needs_mmseg = pytest.mark.skipif(not HAS_MMSEG, reason='needs mmseg and mmcv with its operators')
CAMVID = ROOT / 'configs/map_seg/upernet_hybrid-mini-p8_1xb4-poly-2k_camvid-256px.py'
PRETRAINING = ROOT / 'configs/map_seg/map_hybrid-mini-p8_1xb32-coslr-200e_camvid-128px.py'

# CamVid's config with a smaller model, for smaller images.
TINY = f"""
_base_ = {str(CAMVID)!r}
norm_cfg = dict(type='GN', num_groups=2)
arch = dict(embed_dim=16, layout='MMMT', num_heads=2, d_state=4)
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(arch=arch, img_size=32, out_indices=(1, 2, 3), init_cfg=None),
    neck=dict(in_channels=16, out_channels=8),
    decode_head=dict(in_channels=[8] * 3, channels=8, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=8, channels=8, norm_cfg=norm_cfg),
    test_cfg=dict(crop_size=(32, 32), stride=(24, 24)),
)
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (56, 40)
train_pipeline[3].crop_size = (32, 32)
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
tta_ratios = (0.8, 1.25)
param_scheduler = [dict(type='PolyLR', power=1.0, by_epoch=False, begin=0, end=4)]
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=2, max_keep_ckpts=-1),
    visualization=dict(interval=1),
)
"""


def write_images(root, folders, labels, suffix, sizes=((36, 52), (40, 56))):
    """Images of three stripes, each of the brightness of its label."""
    for number, (images, annotations) in enumerate(folders):
        for folder in (images, annotations):
            (root / folder).mkdir(parents=True)
        for i in range(4):
            rng = np.random.default_rng(10 * number + i)
            height, width = sizes[i % len(sizes)]
            stripes = rng.choice(labels, 3)[np.arange(width) * 3 // width]
            truth = np.broadcast_to(stripes, (height, width)).astype('uint8')
            image = (truth[..., None] * 20 + rng.integers(0, 10, (height, width, 3))).astype('uint8')
            Image.fromarray(image).save(root / images / f'{i}{suffix}')
            Image.fromarray(truth).save(root / annotations / f'{i}.png')


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty current folder; the default scope is forgotten again."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.chdir(tmp_path)
    before = dict(DefaultScope._instance_dict)
    yield tmp_path
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture
def tiny(workplace):
    """A config that trains on four generated images of CamVid's layout, with label 11 among theirs."""
    folders = [(f'images/{split}', f'annotations/{split}') for split in ('train', 'val')]
    write_images(workplace / 'data/camvid', folders, (0, 4, 8, 11), '.png')
    path = workplace / 'tiny.py'
    path.write_text(TINY)
    return path


@pytest.fixture
def ade20k(workplace):
    """Generated images of ADE20K's layout; label 0 is not one of its classes."""
    folders = [(f'images/{split}', f'annotations/{split}') for split in ('training', 'validation')]
    sizes = ((64, 90), (70, 64))
    write_images(workplace / 'data/ade/ADEChallengeData2016', folders, np.arange(13), '.jpg', sizes)


def scalars(work_dir, key):
    """The values logged under a name in the newest run of a work directory."""
    run = max(path for path in Path(work_dir).iterdir() if path.is_dir())
    training = run / 'vis_data/scalars.json'
    # A test writes its numbers elsewhere.
    files = [training] if training.exists() else run.glob('*.json')
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def last_line(run_tool, capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        run_tool(*arguments)
    assert end.value.code == 1
    return capsys.readouterr().err.splitlines()[-1]


@needs_mmseg
def test_train_resume_and_pictures(tiny, run_tool, capsys):
    run_tool('train.py', tiny, '--work-dir', 'run')
    assert 'Iter(train) [2/2]' in re.sub(r'\[ *', '[', capsys.readouterr().out)
    assert len(list(Path('run').glob('*/vis_data/vis_image/val_*.png'))) == 4
    run_tool('train.py', tiny, '--work-dir', 'run', '--resume', '--cfg-options', 'train_cfg.max_iters=4')
    out = capsys.readouterr().out
    assert re.search(r'Resuming from .*run/iter_2\.pth', out) and re.search(r'resumed epoch: 0, iter: 2', out)
    losses = scalars('run', 'loss')
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert Path('run/iter_4.pth').is_file()


@needs_mmseg
def test_learns_and_a_test_gives_the_numbers_of_the_validation(tiny, run_tool, workplace):
    # Without the changes of colours, which tell the classes apart here; evaluated on the images of the training.
    (workplace / 'learn.py').write_text("""
_base_ = './tiny.py'
train_pipeline = [t for t in _base_.train_pipeline if t['type'] != 'PhotoMetricDistortion']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_prefix=_base_.train_dataloader.dataset.data_prefix))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-2))
param_scheduler = []
train_cfg = dict(max_iters=60, val_interval=60)
default_hooks = dict(checkpoint=dict(interval=60), visualization=dict(interval=2))
""")
    run_tool('train.py', 'learn.py', '--work-dir', 'run')
    losses = scalars('run', 'decode.loss_ce')
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2
    validated = {key: scalars('run', key) for key in ('mIoU', 'aAcc', 'mAcc')}
    assert validated['aAcc'][0] > 60

    run_tool('test.py', 'learn.py', 'run/iter_60.pth', '--work-dir', 'tested')
    for key, (value,) in validated.items():
        assert scalars('tested', key) == [pytest.approx(value, abs=1e-4)]
    assert len(list(Path('tested').glob('*/vis_data/vis_image/test_*.png'))) == 4


@needs_mmseg
def test_windows_whole_images_and_augmentation(tiny, run_tool):
    torch.manual_seed(0)
    cfg = Config.fromfile(tiny)
    init_default_scope('mmseg')
    torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, 'model.pth')
    common = ['--cfg-options', 'default_hooks.visualization.draw=False']
    run_tool('test.py', tiny, 'model.pth', '--work-dir', 'windows', *common)
    run_tool('test.py', tiny, 'model.pth', '--work-dir', 'whole', *common, 'model.test_cfg.mode=whole')
    run_tool('test.py', tiny, 'model.pth', '--work-dir', 'tta', '--tta', '--show-dir', 'pictures', *common)
    for name in ('windows', 'whole', 'tta'):
        assert 0 <= scalars(name, 'mIoU')[-1] <= 100
    assert not list(Path('whole').rglob('*.png'))
    # Truth and prediction beside each other, whatever the config says.
    sizes = [Image.open(path).size for path in sorted(Path('pictures').rglob('test_*.png'))]
    assert sizes == [(2 * 52, 36), (2 * 56, 40)] * 2


@needs_mmseg
def test_augmented_prediction_is_the_mean_of_the_single_ones(tiny):
    init_default_scope('mmseg')
    from mmseg.registry import DATASETS

    cfg = Config.fromfile(tiny)
    enable_tta(cfg)
    model = MODELS.build(cfg.model).eval()
    item = DATASETS.build(cfg.test_dataloader.dataset)[0]
    batch = {key: [[value] for value in item[key]] for key in ('inputs', 'data_samples')}
    # The images have 36 x 52 pixels: no size of CamVid's.
    assert [image.shape[-2:] for image in item['inputs']] == [(29, 42)] * 2 + [(45, 65)] * 2
    with torch.no_grad():
        merged = model.test_step(batch)[0].pred_sem_seg.data
        single = [
            model.module.test_step(dict(inputs=[image], data_samples=[sample]))[0].seg_logits.data
            for image, sample in zip(item['inputs'], item['data_samples'], strict=True)
        ]
    assert merged.shape[-2:] == (36, 52)
    expected = torch.stack([logits.softmax(0) for logits in single]).mean(0).argmax(0)
    assert torch.equal(merged.squeeze(), expected)


@needs_mmseg
def test_starts_from_the_pretraining_of_the_same_images(workplace):
    init_default_scope('mmpretrain')
    before = MODELS.build(Config.fromfile(PRETRAINING).model)
    cfg = Config.fromfile(CAMVID)
    checkpoint = Path(cfg.model.backbone.init_cfg.checkpoint)
    checkpoint.parent.mkdir(parents=True)
    torch.save({'state_dict': before.state_dict()}, checkpoint)
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model)
    model.init_weights()
    weights = before.backbone.state_dict()
    loaded = model.backbone.state_dict()
    # The positions of 16 x 16 patches are resized for 32 x 32.
    assert loaded.pop('pos_embed.weight').shape[1:3] == (32, 32)
    assert len(loaded) > 50
    for name, value in loaded.items():
        assert torch.equal(value, weights[name]), name


def own_config():
    """The config that the documentation shows."""
    page = (ROOT / 'docs/en/segmentation.md').read_text()
    (block,) = (b for b in re.findall(r'```python\n(.*?)```', page, re.S) if "_base_ = 'mmseg::" in b)
    return block


@needs_mmseg
def test_unmodified_config_of_mmseg_with_our_backbone(ade20k, run_tool, workplace):
    text = own_config()
    assert len(text.splitlines()) < 20
    small = "arch=dict(embed_dim=192, layout='MMMT', num_heads=4, d_state=4)"
    assert "arch='tiny'" in text
    (workplace / 'own.py').write_text(text.replace("arch='tiny'", small))
    # The sizes are those of the generated images.
    options = ['model.data_preprocessor.size=(64,64)', 'train_dataloader.dataset.pipeline.3.crop_size=(64,64)']
    options += ['model.backbone.img_size=64', 'model.backbone.out_indices=(0,1,2,3)', 'model.decode_head.channels=16']
    options += ['model.auxiliary_head.channels=16', 'default_hooks.logger.interval=1']
    options += ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
    for name, resize in (('train', 2), ('val', 1), ('test', 1)):
        options += [f'{name}_dataloader.num_workers=0', f'{name}_dataloader.persistent_workers=False']
        options += [f'{name}_dataloader.dataset.pipeline.{resize}.scale=(256,72)']
    run_tool('train.py', 'own.py', '--work-dir', 'run', '--cfg-options', *options)
    losses = scalars('run', 'loss')
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert 0 <= scalars('run', 'mIoU')[-1] <= 100
    weights = torch.load('run/iter_2.pth', weights_only=False)['state_dict']
    assert weights['backbone.encoder.blocks.3.attn.qkv.weight'].shape == (3 * 192, 192)
    assert 'neck.levels.0.1.weight' in weights and 'decode_head.fpn_bottleneck.conv.weight' in weights


@pytest.mark.slow
@needs_mmseg
def test_sync_bn_in_two_processes_without_a_gpu(tiny):
    if torch.cuda.is_available():
        pytest.skip('two processes would need two GPUs')
    with open(tiny, 'a') as file:
        # Its one option is not that of group norm.
        file.write("norm_cfg = dict(_delete_=True, type='SyncBN')\n")
        for head in ('decode_head', 'auxiliary_head'):
            file.write(f"model['{head}']['norm_cfg'] = norm_cfg\n")
    command = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc-per-node=2', '--standalone']
    command += [ROOT / 'tools/train.py', tiny, '--launcher', 'pytorch', '--work-dir', 'run']
    environment = os.environ | dict(OMP_NUM_THREADS='1')
    environment.pop('LOCAL_RANK')
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert 'SyncBN -> BN' in output and Path('run/iter_2.pth').is_file()


@pytest.mark.parametrize(
    'base', ['_base_ = "mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py"', 'default_scope = "mmseg"']
)
def test_missing_mmseg_is_one_line_that_says_what_to_install(workplace, run_tool, capsys, monkeypatch, base):
    (workplace / 'own.py').write_text(base)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: None if name == 'mmseg' else find_spec(name, *a))
    # mmengine looks among the installed distributions first.
    monkeypatch.setattr('mmengine.config.config.is_installed', lambda package: False)
    line = last_line(run_tool, capsys, 'train.py', 'own.py', '--work-dir', 'run')
    assert line == 'error: own.py: mmseg is not installed: run `pip install onedl-mmsegmentation`'


@needs_mmseg
@pytest.mark.parametrize(
    ('options', 'culprit'),
    [
        (['train_dataloader.dataset.data_root=/no/camvid'], 'train_dataloader.dataset.data_root'),
        (['train_dataloader.dataset.data_prefix.img_path=images/no'], 'data_prefix.img_path'),
        (['model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=no.pth'], 'no.pth'),
        (['model.decode_head.type=UperHed'], 'UperHed'),
        (['model.neck.in_channels=24'], 'SimpleFeaturePyramid expects (B, 24, H, W)'),
    ],
)
def test_mistakes_end_in_one_line(tiny, run_tool, capsys, options, culprit):
    line = last_line(run_tool, capsys, 'train.py', tiny, '--work-dir', 'run', '--cfg-options', *options)
    assert line.startswith('error: ') and culprit in line


@needs_mmseg
def test_confusion_matrix_of_pixels(tiny, run_tool, capsys):
    init_default_scope('mmseg')
    torch.save({'state_dict': MODELS.build(Config.fromfile(tiny).model).state_dict()}, 'model.pth')
    run_tool('test.py', tiny, 'model.pth', '--work-dir', 'run', '--out', 'found.pkl')
    counts = []
    for source in ('model.pth', 'found.pkl'):
        capsys.readouterr()
        run_tool('analysis_tools/confusion_matrix.py', tiny, source, '--json', 'cm.json', '--work-dir', 'cm')
        matrix = json.loads(Path('cm.json').read_text())
        assert len(matrix['classes']) == 11
        counts.append(np.array(matrix['counts']))
        assert re.search(r'accuracy: [0-9.]+ % of \d+ pixels', capsys.readouterr().out)
    assert np.array_equal(*counts)
    right = 100 * counts[0].trace() / counts[0].sum()
    assert scalars('run', 'aAcc')[-1] == pytest.approx(right, abs=0.01)


def _label(path):
    labels = np.array(Image.open(path))
    labels[5:-5, 10:-10] = 77
    Image.fromarray(labels).save(path)


@needs_mmseg
@pytest.mark.parametrize(
    ('damage', 'message', 'workers'),
    [
        # Ended in a worker, a run takes seconds to stop.
        (_label, 'has the label 77', 1),
        (lambda path: Image.open(path).convert('RGB').save(path), 'is of shape (36, 52, 3)', 0),
        (lambda path: Image.open(path).resize((9, 9), 0).save(path), 'has (9, 9) pixels', 0),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), 'cannot be read', 0),
    ],
)
def test_training_names_the_faulty_mask(tiny, run_tool, capsys, damage, message, workers):
    masks = sorted(path for path in Path().rglob('annotations/train/*.png'))
    damage(masks[0])
    options = [f'train_dataloader.num_workers={workers}', 'custom_hooks=[]', 'train_cfg.max_iters=6']
    options += ['train_cfg.val_interval=9']
    with pytest.raises(SystemExit):
        run_tool('train.py', tiny, '--work-dir', 'run', '--cfg-options', *options)
    line = capsys.readouterr().err.splitlines()[-1]
    assert masks[0].name in line and message in line


@needs_mmseg
@pytest.mark.parametrize('original', ['stays', pytest.param('is gone', marks=pytest.mark.slow)])
def test_a_copied_run_goes_on_from_its_own_file(tiny, run_tool, capsys, original):
    more = ['--no-validate', '--cfg-options', 'train_cfg.max_iters=4']
    run_tool('train.py', tiny, '--work-dir', 'run', '--no-validate')
    # A path that is valid wherever it is read.
    assert Path('run/last_checkpoint').read_text() == str(Path('run/iter_2.pth').absolute())
    shutil.copytree('run', 'copy')
    # What the original did since is nothing of the copy's.
    if original == 'stays':
        run_tool('train.py', tiny, '--work-dir', 'run', '--resume', *more)
    else:
        shutil.rmtree('run')
    capsys.readouterr()
    run_tool('train.py', tiny, '--work-dir', 'copy', '--resume', *more)
    out = capsys.readouterr().out
    assert re.search(r'Resuming from copy/iter_2\.pth', out) and 'resumed epoch: 0, iter: 2' in out
    assert Path('copy/iter_4.pth').is_file()
    assert Path('copy/last_checkpoint').read_text() == str(Path('copy/iter_4.pth').absolute())
