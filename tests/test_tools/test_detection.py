"""Detectors under the training and test tools, on generated images in COCO's format."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image, ImageDraw

from mmmap.apis import build_model
from mmmap.engine.launch import read_config

ROOT = Path(__file__).parents[2]
HAS_MMDET = all(importlib.util.find_spec(name) for name in ('mmcv._ext', 'mmdet'))
needs_mmdet = pytest.mark.skipif(not HAS_MMDET, reason='needs mmdet and mmcv with its operators')
CLASSES = ('square', 'disc')

TINY = """
_base_ = {base!r}
metainfo = dict(classes=('square', 'disc'))
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        arch=dict(_delete_=True, embed_dim=32, layout='MT', num_heads=2, d_state=4), img_size=64, init_cfg=None
    ),
    neck=dict(in_channels=32, out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, conv_out_channels=16, fc_out_channels=32, num_classes=2),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_classes=2),
    ),
    # Some predictions of an untrained model have to pass.
    test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=20)),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
dataset = dict(
    data_root='shapes/', ann_file='all.json', data_prefix=dict(img='images/'), metainfo=metainfo, pipeline=pipeline
)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dataset)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='shapes/all.json')
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=1), visualization=dict(draw=True, interval=2, score_thr=0.0))
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=2, val_interval=1)
"""

# All that an unmodified config of mmdet needs.
OWN = """
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmmap'], allow_failed_imports=False)
arch = dict(embed_dim=32, layout='MT', num_heads=2, d_state=4)
model = dict(
    backbone=dict(_delete_=True, type='MAPHybrid', arch=arch, img_size=64, out_type='featmap'),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=32, with_max_pool=True),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.1),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.87),
)
"""


def draw(seed):
    """An image of a disc on a square, and their boxes: so large that a model that has hardly learned finds some."""
    rng = np.random.default_rng(seed)
    height, width = (64, 48) if seed % 2 else (48, 64)
    image = Image.new('RGB', (width, height), (128, 128, 128))
    pen, boxes = ImageDraw.Draw(image), []
    for shape, colour, low, high in ((pen.rectangle, 240, 1, 4), (pen.ellipse, 10, 6, 12)):
        left, top, right, bottom = (int(margin) for margin in rng.integers(low, high, 4))
        box = [left, top, width - right, height - bottom]
        shape(box, fill=(colour,) * 3)
        boxes.append([left, top, box[2] - left, box[3] - top])
    return image, boxes


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """Four images in COCO's format under ``shapes`` of the current folder; the default scope is forgotten again."""
    folder = tmp_path / 'shapes'
    (folder / 'images').mkdir(parents=True)
    images, annotations = [], []
    for number in range(4):
        image, boxes = draw(number)
        image.save(folder / 'images' / f'{number}.jpg')
        images.append(dict(id=number, file_name=f'{number}.jpg', width=image.width, height=image.height))
        for category, (x, y, w, h) in enumerate(boxes):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=category,
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=0,
                    segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'all.json').write_text(json.dumps(content))
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)
    before = dict(DefaultScope._instance_dict)
    yield folder
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture
def config(shapes, tmp_path):
    """A function that writes a config for the shapes: the named one of ours, made tiny."""

    def write(stem='mask-rcnn_hybrid-tiny-p16_8xb2-amp-1x-12e_coco-800px', text=''):
        path = tmp_path / 'tiny.py'
        path.write_text(TINY.format(base=str(ROOT / f'configs/map_det/{stem}.py')) + text)
        return path

    return write


def scalars(work_dir, key):
    """The values logged under a name in the newest run of a work directory."""
    # In training this file; in a test one named by the time.
    paths = list(Path(work_dir).glob('*/vis_data/scalars.json')) or list(Path(work_dir).glob('*/*.json'))
    newest = max(paths, key=lambda path: path.stat().st_mtime_ns)
    lines = [json.loads(line) for line in newest.read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def last_line(run_tool, capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        run_tool(*arguments)
    assert end.value.code == 1
    return capsys.readouterr().err.splitlines()[-1]


@needs_mmdet
def test_train_resume_test_and_pictures(config, run_tool, capsys):
    path = config()
    run_tool('train.py', path, '--work-dir', 'run', '--cfg-options', 'train_cfg.max_epochs=1')
    out = capsys.readouterr().out
    assert 'AmpOptimWrapper -> OptimWrapper' in out or torch.cuda.is_available()
    assert 'Epoch(train) [1][2/2]' in re.sub(r' +', ' ', out)
    assert list(Path('run').glob('*/vis_data/vis_image/val_img_*.png'))

    run_tool('train.py', path, '--work-dir', 'run', '--resume')
    assert re.search(r'resumed epoch: 1, iter: 2', capsys.readouterr().out)
    losses = scalars('run', 'loss')
    assert len(losses) == 2 and all(np.isfinite(losses))
    validated = {key: scalars('run', f'coco/{key}_mAP')[-1] for key in ('bbox', 'segm')}
    assert min(validated.values()) > 0

    run_tool('test.py', path, 'run/epoch_2.pth', '--work-dir', 'tested', '--show-dir', 'pictures')
    for key, value in validated.items():
        assert scalars('tested', f'coco/{key}_mAP') == [pytest.approx(value, abs=1e-4)]
    assert sorted(picture.name for picture in Path('pictures').iterdir()) == [f'{number}.jpg' for number in range(4)]


@needs_mmdet
def test_cascade_trains(config, run_tool):
    text = """
model['roi_head']['bbox_head'] = [
    dict(head, in_channels=16, conv_out_channels=16, fc_out_channels=32, num_classes=2)
    for head in _base_.model.roi_head.bbox_head
]
"""
    path = config('cascade-mask-rcnn_hybrid-tiny-p16_8xb8-amp-lsj-100e_coco-1024px', text)
    run_tool('train.py', path, '--work-dir', 'run', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=1')
    assert np.isfinite(scalars('run', 'loss')).all() and len(scalars('run', 's2.loss_bbox')) == 2


@needs_mmdet
def test_unmodified_config_of_mmdet_with_our_backbone(shapes, run_tool, tmp_path, capsys):
    assert len([line for line in OWN.splitlines() if line]) < 15
    (tmp_path / 'own.py').write_text(OWN)
    # The data of these tests in place of COCO's.
    options = [f'{name}_dataloader.dataset.ann_file=all.json' for name in ('train', 'val', 'test')]
    options += [f'{name}_dataloader.dataset.data_root=shapes/' for name in ('train', 'val', 'test')]
    options += [f'{name}_dataloader.dataset.data_prefix.img=images/' for name in ('train', 'val', 'test')]
    options += [f'{name}_dataloader.num_workers=0' for name in ('train', 'val', 'test')]
    options += [f'{name}_dataloader.persistent_workers=False' for name in ('train', 'val', 'test')]
    options += [f'{name}_evaluator.ann_file=shapes/all.json' for name in ('val', 'test')]
    options += [f'{name}_dataloader.dataset.metainfo.classes=("square","disc")' for name in ('train', 'val', 'test')]
    options += ['model.roi_head.bbox_head.num_classes=2', 'model.roi_head.mask_head.num_classes=2']
    options += ['train_dataloader.dataset.pipeline.2.scale=(96,64)', 'test_dataloader.dataset.pipeline.1.scale=(96,64)']
    options += ['val_dataloader.dataset.pipeline.1.scale=(96,64)', 'train_cfg.max_epochs=1']
    options += ['default_hooks.logger.interval=1']
    run_tool('train.py', 'own.py', '--work-dir', 'run', '--cfg-options', *options)
    losses = scalars('run', 'loss')
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert scalars('run', 'coco/bbox_mAP')
    weights = torch.load('run/epoch_1.pth', weights_only=False)['state_dict']
    assert 'backbone.encoder.blocks.1.attn.qkv.weight' in weights and 'neck.levels.0.1.weight' in weights


def test_docs_show_the_config_of_the_test():
    shown = (ROOT / 'docs/en/detection.md').read_text()
    shown = shown[shown.index("_base_ = 'mmdet") :].split('```')[0]
    # The same but for the size of the model.
    own = OWN.strip().replace("arch = dict(embed_dim=32, layout='MT', num_heads=2, d_state=4)\n", '')
    own = own.replace('arch=arch, img_size=64', "arch='tiny'").replace('in_channels=32', 'in_channels=192')
    assert own == shown.strip()


@pytest.mark.parametrize(
    'base', ['_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"', 'default_scope = "mmdet"']
)
def test_missing_mmdet_is_one_line_that_says_what_to_install(shapes, run_tool, capsys, tmp_path, monkeypatch, base):
    (tmp_path / 'own.py').write_text(base)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: None if name == 'mmdet' else find_spec(name, *a))
    # mmengine looks among the installed distributions first.
    monkeypatch.setattr('mmengine.config.config.is_installed', lambda package: False)
    line = last_line(run_tool, capsys, 'train.py', 'own.py', '--work-dir', 'run')
    assert line == 'error: own.py: mmdet is not installed: run `pip install onedl-mmdetection`'


@needs_mmdet
def test_mmcv_without_operators_is_one_line(shapes, run_tool, capsys, tmp_path, monkeypatch):
    (tmp_path / 'own.py').write_text('default_scope = "mmdet"')
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    line = last_line(run_tool, capsys, 'train.py', 'own.py', '--work-dir', 'run')
    assert 'mmdet needs mmcv with its compiled operators' in line
    assert '--no-build-isolation --no-deps --force-reinstall onedl-mmcv' in line


@needs_mmdet
def test_missing_data_is_named_with_its_field(shapes, run_tool, capsys):
    stem = 'mask-rcnn_hybrid-tiny-p16_8xb2-amp-1x-12e_coco-800px'
    path = ROOT / f'configs/map_det/{stem}.py'
    options = ['model.backbone.init_cfg=None']
    line = last_line(run_tool, capsys, 'train.py', path, '--work-dir', 'run', '--cfg-options', *options)
    assert 'data not found' in line and 'train_dataloader.dataset.data_root' in line


@needs_mmdet
def test_augmented_test(config, run_tool, capsys):
    # The pictures have sides of 48 and 64 pixels: 48 of the size of the test are no whole patches.
    flipped = "pipeline[:3] + [dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]"
    path = config(text=f'tta_ratios = (0.7, 1.0)\ntrain_dataloader["dataset"] = dict(dataset, pipeline={flipped})\n')
    cfg = read_config(path)
    torch.save(dict(state_dict=build_model(cfg).state_dict()), 'model.pth')
    run_tool('test.py', path, 'model.pth', '--work-dir', 'tta', '--tta', '--out', 'found.pkl', '--show-dir', 'pictures')
    assert 'each image at 0.7, 1 of its size in a test, each mirrored as well' in capsys.readouterr().out
    found = mmengine.load('found.pkl')
    assert len(found) == 4 and all(0 < len(sample['pred_instances']['scores']) <= 20 for sample in found)
    assert scalars('tta', 'coco/segm_mAP')
    assert len(list(Path('pictures').iterdir())) == 4


@needs_mmdet
def test_confusion_matrix_of_a_checkpoint_and_of_its_predictions(config, run_tool, capsys):
    path = config()
    torch.save(dict(state_dict=build_model(read_config(path)).state_dict()), 'model.pth')
    run_tool('test.py', path, 'model.pth', '--work-dir', 'run', '--out', 'found.pkl')
    options = ['--json', 'cm.json', '--out', 'cm.png', '--score-thr', 0, '--work-dir', 'run']
    found = mmengine.load('found.pkl')
    counts = []
    for source in ('model.pth', 'found.pkl'):
        capsys.readouterr()
        run_tool('analysis_tools/confusion_matrix.py', path, source, *options)
        matrix = json.loads(Path('cm.json').read_text())
        assert matrix['classes'] == [*CLASSES, 'background'] and Path('cm.png').is_file()
        counts.append(np.array(matrix['counts']))
        # Four objects of each class; every detection is somewhere.
        assert counts[-1][:2].sum(1).tolist() == [4, 4]
        assert counts[-1][:, :2].sum() == sum(len(sample['pred_instances']['scores']) for sample in found)
        assert ' of 8 objects found as their class' in capsys.readouterr().out
    assert np.array_equal(*counts)
    # What is true, found with certainty.
    content = json.loads(Path('shapes/all.json').read_text())
    for sample in found:
        boxes = [part for part in content['annotations'] if part['image_id'] == sample['img_id']]
        sample['pred_instances'] = dict(
            bboxes=torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (part['bbox'] for part in boxes)]),
            labels=torch.tensor([part['category_id'] for part in boxes]),
            scores=torch.ones(len(boxes)),
        )
    mmengine.dump(found, 'right.pkl')
    run_tool('analysis_tools/confusion_matrix.py', path, 'right.pkl', *options)
    assert json.loads(Path('cm.json').read_text())['counts'] == [[4, 0, 0], [0, 4, 0], [0, 0, 0]]


FAULTS = [
    (
        lambda content, folder: content['annotations'][2].update(segmentation=[]),
        '1 of 8 annotations in shapes/all.json',
    ),
    (
        lambda content, folder: (
            Image.open(folder / 'images/1.jpg').transpose(Image.Transpose.ROTATE_90).save(folder / 'images/1.jpg')
        ),
        'images/1.jpg has 64 x 48 pixels (width x height), image 1 in shapes/all.json has 48 x 64',
    ),
    (
        lambda content, folder: (folder / 'images/1.jpg').write_bytes((folder / 'images/1.jpg').read_bytes()[:300]),
        'images/1.jpg cannot be read',
    ),
]


@needs_mmdet
@pytest.mark.parametrize(('damage', 'message'), FAULTS)
@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_training_names_the_faulty_file(config, shapes, run_tool, capsys, damage, message, workers):
    path = config()
    content = json.loads((shapes / 'all.json').read_text())
    damage(content, shapes)
    (shapes / 'all.json').write_text(json.dumps(content))
    options = [f'train_dataloader.num_workers={workers}', 'custom_hooks=[]']
    line = last_line(
        run_tool, capsys, 'train.py', path, '--work-dir', 'run', '--no-validate', '--cfg-options', *options
    )
    assert message in line


@needs_mmdet
@pytest.mark.slow
def test_a_copied_run_goes_on_from_its_own_file(config, run_tool, capsys):
    path = config()
    run_tool('train.py', path, '--work-dir', 'run', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=1')
    shutil.copytree('run', 'copy')
    run_tool('train.py', path, '--work-dir', 'run', '--no-validate', '--resume')
    capsys.readouterr()
    run_tool('train.py', path, '--work-dir', 'copy', '--no-validate', '--resume')
    assert re.search(r'Resuming from copy/epoch_1\.pth', capsys.readouterr().out)
    assert Path('copy/epoch_2.pth').is_file()
