"""A pretraining checkpoint in a classifier's backbone: all of it is accounted for, or it is refused."""

import copy
from collections import OrderedDict

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import PretrainedInit
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmmap.models.backbones import MAPHybrid
from mmmap.models.backbones.weight_loading import compact_names
from mmmap.registry import MODELS


@pytest.fixture
def checkpoint(map_cfg, tmp_path):
    """A function that writes a MAP checkpoint, its weights changed by a function, and gives path and weights."""

    def write(change=lambda weights: None, name: str = 'pretrained.pth', **cfg) -> tuple[str, dict]:
        weights = MODELS.build(map_cfg(**cfg)).state_dict()
        change(weights)
        path = str(tmp_path / name)
        torch.save(dict(meta={}, state_dict=weights), path)
        return path, weights

    return write


def classifier_cfg(path: str, prefix: str | None = 'backbone.', **backbone) -> dict:
    arch = dict(embed_dim=32, layout='MMMT', num_heads=4, num_registers=3, d_state=4)
    init_cfg = dict(type='Pretrained', checkpoint=path) | ({} if prefix is None else dict(prefix=prefix))
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='MAPHybrid', arch=arch, img_size=64, out_type='avg_featmap', init_cfg=init_cfg) | backbone,
        head=dict(type='mmpretrain.LinearClsHead', in_channels=32, num_classes=3),
    )


def classifier(*args, **kwargs) -> nn.Module:
    return MODELS.build(classifier_cfg(*args, **kwargs))


@pytest.fixture
def lines(monkeypatch):
    """A function that gives what was logged, but for the record of each parameter's initialisation."""
    records = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'handle', records.append)
    return lambda: [(r.levelname, r.getMessage()) for r in records if not r.getMessage().startswith('\n')]


def report(lines) -> list[str]:
    found = [text for _, text in lines()]
    start = next(i for i, text in enumerate(found) if text.startswith('MAPHybrid: '))
    return found[start : start + 4]


def test_all_of_it_fits(checkpoint, lines):
    path, weights = checkpoint()
    model = classifier(path)
    model.init_weights()
    own = model.backbone.state_dict()
    assert all(torch.equal(value, weights[f'backbone.{name}']) for name, value in own.items())
    assert report(lines) == [
        f'MAPHybrid: {len(own)} of {len(own)} weights from backbone.* of {path}',
        'new, not in the file (0): none',
        'resized (0): none',
        'left over, not in the model (0): none',
    ]
    assert not [text for level, text in lines() if level == 'WARNING']


def test_new_resized_and_left_over(checkpoint, lines):
    def change(weights: dict) -> None:
        for i in (0, 1, 2):
            weights[f'backbone.encoder.blocks.{i}.gate.weight'] = torch.zeros(1)
        weights['backbone.cls_token'] = torch.zeros(1)

    path, weights = checkpoint(change)
    model = classifier(path, out_type='registers', img_size=(32, 96))
    registers = copy.deepcopy((model.backbone.register_tokens, model.backbone.register_pos_embed))
    model.init_weights()
    own = model.backbone.state_dict()
    assert report(lines) == [
        f'MAPHybrid: {len(own) - 2} of {len(own)} weights from backbone.* of {path}',
        'new, not in the file (2): register_tokens, register_pos_embed',
        'resized (1): pos_embed.weight from 4x4 to 2x6',
        'left over, not in the model (4): cls_token, encoder.blocks.{0-2}.gate.weight',
    ]
    assert torch.equal(model.backbone.register_tokens, registers[0])
    assert torch.equal(model.backbone.register_pos_embed, registers[1])
    for name, value in own.items():
        if not name.startswith(('register_', 'pos_embed')):
            assert torch.equal(value, weights[f'backbone.{name}']), name


def test_part_of_an_encoder_is_told_loudly(checkpoint, lines):
    path, _ = checkpoint(lambda weights: weights.pop('backbone.encoder.blocks.1.mixer.D'))
    classifier(path).init_weights()
    assert report(lines)[1] == 'new, not in the file (1): encoder.blocks.1.mixer.D'
    assert len([text for level, text in lines() if level == 'WARNING' and 'no whole encoder' in text]) == 1


@pytest.mark.parametrize('prefix', ['backbne.', 'backbone.encoder', None])
def test_nothing_that_fits_is_an_error_that_names_the_prefixes(checkpoint, prefix):
    path, _ = checkpoint()
    with pytest.raises(ValueError, match='none of its') as raised:
        classifier(path, prefix).init_weights()
    message = str(raised.value)
    assert path in message
    assert "'backbone.', 'head.', 'neck.'" in message
    assert '\n' not in message


def test_shapes_that_differ_are_an_error_that_names_them_all(checkpoint):
    path, _ = checkpoint()
    arch = dict(embed_dim=32, layout='MMMT', num_heads=4, d_state=8)
    with pytest.raises(ValueError, match='weights of other shapes') as raised:
        classifier(path, arch=arch, patch_size=8, img_size=32).init_weights()
    assert str(raised.value) == (
        f'backbone.* of {path}: weights of other shapes than those of MAPHybrid: '
        'encoder.blocks.{0-2}.mixer.x_proj_weight 2x10x64, here 2x18x64; '
        'encoder.blocks.{0-2}.mixer.A_log 2x64x4, here 2x64x8; '
        'patch_embed.weight 32x3x16x16, here 32x3x8x8'
    )


def test_another_arch_is_an_error(checkpoint):
    path, _ = checkpoint(layout='MMT')
    with pytest.raises(ValueError, match='another arch') as raised:
        classifier(path).init_weights()
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('parallel', [False, True])
def test_a_backbone_alone_needs_no_prefix(checkpoint, tmp_path, lines, parallel):
    _, weights = checkpoint()
    prefix = 'module.' if parallel else ''
    alone = {prefix + name.removeprefix('backbone.'): v for name, v in weights.items() if name.startswith('backbone.')}
    path = str(tmp_path / 'backbone.pth')
    torch.save(alone, path)
    model = classifier(path, None)
    model.init_weights()
    assert report(lines)[0] == f'MAPHybrid: {len(alone)} of {len(alone)} weights from {path}'
    assert torch.equal(model.backbone.patch_embed.weight, weights['backbone.patch_embed.weight'])


@pytest.mark.parametrize('kind', ['mmengine.Pretrained', 'mmpretrain.Pretrained', PretrainedInit])
def test_the_type_may_have_a_scope_or_be_the_class(checkpoint, lines, kind):
    path, weights = checkpoint()
    model = classifier(path, init_cfg=dict(type=kind, checkpoint=path, prefix='backbone.'))
    model.init_weights()
    assert report(lines)[0].startswith('MAPHybrid: ')
    assert torch.equal(model.backbone.patch_embed.weight, weights['backbone.patch_embed.weight'])


def test_other_initialisers_come_first(checkpoint):
    path, weights = checkpoint()
    pretrained = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    constant = dict(type='Constant', layer='Conv2d', val=0.25)
    cfg = classifier_cfg(path, init_cfg=[pretrained, constant])
    given = copy.deepcopy(cfg['backbone']['init_cfg'])
    model = MODELS.build(ConfigDict(cfg))
    model.init_weights()
    assert torch.equal(model.backbone.patch_embed.weight, weights['backbone.patch_embed.weight'])
    assert model.backbone.init_cfg == given
    # What no file speaks of keeps what the others made of it.
    path, _ = checkpoint(lambda w: w.pop('backbone.patch_embed.weight'), 'without.pth')
    model = classifier(path, init_cfg=[dict(pretrained, checkpoint=path), constant])
    model.init_weights()
    assert (model.backbone.patch_embed.weight == 0.25).all()


def test_a_misspelt_option_is_an_error(checkpoint):
    path, _ = checkpoint()
    init_cfg = dict(type='Pretrained', checkpoint=path, prefx='backbone.')
    with pytest.raises(TypeError, match='prefx'):
        classifier(path, init_cfg=init_cfg).init_weights()


def test_a_backbone_by_itself(checkpoint, monkeypatch):
    """mmengine's record of what set each parameter holds for a module without a model around it."""
    path, weights = checkpoint()
    records = []
    # A logger of its own: mmengine writes to the file of one that has a file, as a Runner of an earlier test left it.
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    monkeypatch.setattr(MMLogger.get_current_instance(), 'handle', records.append)
    cfg = classifier_cfg(path, out_type='registers')['backbone']
    cfg.pop('type')
    backbone = MAPHybrid(**cfg)
    backbone.init_weights()
    assert backbone.is_init
    assert not any(hasattr(module, '_params_init_info') for module in backbone.modules())
    assert torch.equal(backbone.patch_embed.weight, weights['backbone.patch_embed.weight'])
    told = {text.split(' - ')[0].strip(): text for text in (r.getMessage() for r in records) if text.startswith('\n')}
    assert f'PretrainedInit: load from {path}' in told['backbone.patch_embed.weight']
    assert 'same before and after' in told['backbone.register_tokens']
    # A second call does not load again.
    with torch.no_grad():
        backbone.patch_embed.weight.zero_()
    backbone.init_weights()
    assert not backbone.patch_embed.weight.any()


class Images(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        from mmpretrain.structures import DataSample

        return dict(inputs=torch.full((3, 64, 64), index / 4), data_samples=DataSample().set_gt_label(index % 3))


@pytest.fixture
def globals_of_mmengine():
    """Take what a Runner leaves behind in the process away afterwards."""
    kept = [(cls, dict(cls._instance_dict)) for cls in (MMLogger, MessageHub, DefaultScope)]
    yield
    for cls, instances in kept:
        cls._instance_dict.clear()
        cls._instance_dict.update(instances)


@pytest.mark.usefixtures('globals_of_mmengine')
def test_in_a_run(checkpoint, tmp_path):
    path, weights = checkpoint()
    cfg = classifier_cfg(path, frozen_stages=0)
    runner = Runner(
        model=cfg,
        work_dir=str(tmp_path / 'run'),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            dataset=Images(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
            constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5),
        ),
        randomness=dict(seed=0),
        default_scope='mmpretrain',
        experiment_name='pretrained',
    )
    runner.train()
    # Frozen, so it still is what was loaded; the last block has moved away from it.
    backbone = runner.model.backbone
    assert torch.equal(backbone.patch_embed.weight, weights['backbone.patch_embed.weight'])
    assert not torch.equal(
        backbone.encoder.blocks[3].mlp.fc1.weight, weights['backbone.encoder.blocks.3.mlp.fc1.weight']
    )
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert f'weights from backbone.* of {path}' in log
    assert 'resized (0): none' in log


def test_compact():
    names = [f'blocks.{i}.norm.weight' for i in (0, 1, 2, 4)] + ['blocks.3.b', 'D', 'a.0', 'x.1.fc.2.w', 'x.2.fc.2.w']
    assert compact_names(names) == 'blocks.{0-2,4}.norm.weight, blocks.3.b, D, a.0, x.{1-2}.fc.2.w'
    assert compact_names([]) == 'none'
