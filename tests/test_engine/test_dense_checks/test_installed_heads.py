"""The numbers of classes in configs of mmdet and mmseg are those of their data sets."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

pytest.importorskip('mmcv._ext')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

import mmdet
import mmseg

from mmmap.engine.config_parts import find_class
from mmmap.engine.dense_checks import classes
from mmmap.engine.wrapped_datasets import leaf_datasets
from mmmap.utils.errors import UserError

# Proposals alone, things and stuff, masks of stuff beside those of things, edges, several stages, a ConcatDataset.
CONFIGS = (
    (mmdet, 'guided_anchoring/ga-rpn_r50_fpn_1x_coco.py'),
    (mmdet, 'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'),
    (mmdet, 'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py'),
    (mmdet, 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'),
    (mmdet, 'htc/htc_r50_fpn_1x_coco.py'),
    (mmdet, 'pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'),
    (mmseg, 'stdc/stdc1_4xb12-80k_cityscapes-512x1024.py'),
    (mmseg, 'point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py'),
)


def without_checkpoints(part):
    if isinstance(part, dict):
        part.pop('init_cfg', None)
        part.pop('pretrained', None)
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ():
        without_checkpoints(inner)


@pytest.mark.parametrize(('package', 'name'), CONFIGS)
def test_no_false_alarm(package, name, monkeypatch):
    cfg = Config.fromfile(Path(package.__file__).parent / '.mim/configs' / name)
    init_default_scope(cfg.default_scope)
    without_checkpoints(cfg.model)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    data = []
    for key, leaf in leaf_datasets(cfg.train_dataloader.dataset, 'train_dataloader.dataset'):
        meta = find_class(leaf, ('dataset',)).METAINFO | (leaf.get('metainfo') or {})
        data.append((key, SimpleNamespace(metainfo=meta)))
    monkeypatch.setattr(classes, 'datasets', lambda runner: data)
    classes.check_classes(SimpleNamespace(model=model))
    if 'rpn' in name.split('/')[1].split('_')[0]:
        return
    data[0][1].metainfo = dict(classes=('one', 'two'))
    with pytest.raises(UserError, match='but train_dataloader'):
        classes.check_classes(SimpleNamespace(model=model))
