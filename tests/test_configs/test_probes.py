"""The configs that probe a checkpoint fit the pretraining that wrote it."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, TRANSFORMS

from mmmap.registry import LOOPS, MODELS

MAP = Path(__file__).parents[2] / 'configs/map'
DIGITS = MAP / 'map_hybrid-digits_1xb64-coslr-16e_digits-28px.py'
PRETRAINING = {
    'map_hybrid-digits_knn_digits-28px': DIGITS,
    'map_hybrid-tiny-p4_knn_cifar10-32px': MAP / 'map_hybrid-tiny-p4_1xb256-coslr-200e_cifar10-32px.py',
    'map_hybrid-base-p16_knn_in1k': MAP / 'vit-mamba_in1k.py',
    'map_hybrid-digits_1xb64-linear-coslr-10e_digits-28px': DIGITS,
    'map_hybrid-digits_1xb64-finetune-coslr-10e_digits-28px': DIGITS,
}
KNN = [name for name in PRETRAINING if '_knn_' in name]
TRAINED = [name for name in PRETRAINING if '_knn_' not in name]


def read(path: Path) -> Config:
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    return cfg


def build(cfg: Config) -> torch.nn.Module:
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}


@pytest.mark.parametrize('name', KNN)
def test_knn_takes_the_pretraining_model_and_labelled_images(name):
    cfg = read(MAP / f'benchmarks/{name}.py')
    model = build(cfg)
    assert shapes(model) == shapes(build(read(PRETRAINING[name])))
    assert LOOPS.get(cfg.test_cfg.type).__name__ == 'KNNLoop'
    parts = []
    for loader in (cfg.test_cfg.bank_dataloader, cfg.test_dataloader):
        assert DATASETS.get(loader.dataset.type)
        assert loader.dataset.get('with_label', True) and not loader.sampler.shuffle
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
        crops = [t.crop_size for t in loader.dataset.pipeline if t.type == 'CenterCrop']
        assert all(model.backbone.img_size == (crop, crop) for crop in crops)
        parts.append(loader.dataset.get('split') or loader.dataset.data_prefix)
    assert parts[0] == 'train' and parts[1] in ('val', 'test')
    assert cfg.test_cfg.bank_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline


@pytest.mark.parametrize('name', TRAINED)
def test_backbone_is_the_one_of_the_pretraining(name):
    cfg, pretraining = read(MAP / f'benchmarks/{name}.py'), read(PRETRAINING[name])
    assert shapes(build(cfg).backbone) == shapes(build(pretraining).backbone)
    init = cfg.model.backbone.init_cfg
    assert (init.type, init.prefix) == ('Pretrained', 'backbone.')
    assert init.checkpoint == f'work_dirs/demo/epoch_{pretraining.train_cfg.max_epochs}.pth'
    for key in ('mean', 'std'):
        assert cfg.model.data_preprocessor[key] == pretraining.model.data_preprocessor[key]
    assert cfg.train_dataloader.dataset.data_prefix == 'train'
    assert cfg.val_dataloader.dataset.data_prefix == cfg.test_dataloader.dataset.data_prefix == 'test'


def test_linear_probe_trains_one_layer():
    linear, finetune = (build(read(MAP / f'benchmarks/{name}.py')) for name in TRAINED)
    assert {name for name, p in linear.named_parameters() if p.requires_grad} == {'head.fc.weight', 'head.fc.bias'}
    assert not linear.neck.bn.affine
    assert all(p.requires_grad for p in finetune.parameters())
