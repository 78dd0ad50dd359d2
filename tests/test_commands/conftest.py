"""A tiny classifier with three classes, as a config and a checkpoint, and a folder of pictures."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmmap.apis import build_model

CONFIG = """
model = dict(
    type='HybridClassifier',
    backbone=dict(
        type='MAPHybrid', arch=dict(embed_dim=16, layout='MT', num_heads=2), img_size=32, patch_size=8,
        out_type='avg_featmap',
    ),
    head=dict(type='LinearClsHead', num_classes=3),
)
data_preprocessor = dict(num_classes=3, mean=[120, 120, 120], std=[60, 60, 60], to_rgb=True)
test_dataloader = dict(
    batch_size=4,
    dataset=dict(
        type='ImageFolder',
        pipeline=[
            dict(type='LoadImageChecked', on_error='raise'),
            dict(type='ResizeEdge', scale=36, edge='short'),
            dict(type='CenterCrop', crop_size=32),
            dict(type='PackInputs'),
        ],
    ),
)
"""


@pytest.fixture
def classifier(tmp_path):
    path = tmp_path / 'classifier.py'
    path.write_text(CONFIG)
    torch.manual_seed(0)
    model = build_model(Config.fromfile(path))
    checkpoint = tmp_path / 'classifier.pth'
    meta = dict(dataset_meta=dict(classes=('cat', 'dog', 'owl')))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    return str(path), str(checkpoint)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'pictures'
    random = np.random.default_rng(0)
    for name in ('a.png', 'b.jpg', 'sub/a.png', 'sub/c.png', 'd.png'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (40, 60, 3), np.uint8)).save(folder / name)
    return folder
