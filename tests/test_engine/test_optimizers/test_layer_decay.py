"""LayerDecayOptimWrapperConstructor: each parameter has the learning rate and the decay of its place."""

import copy
import logging

import pytest
import torch
import torch.distributed as dist
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel, MMFullyShardedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.testing._internal.distributed.fake_pg import FakeStore

from mmmap.registry import MODELS

RATE, LR, DECAY = 0.5, 0.1, 0.05
ARCH = dict(embed_dim=16, layout='MMMT', num_heads=2, num_registers=2, d_state=4)
BACKBONE = dict(type='MAPHybrid', arch=ARCH, img_size=32, patch_size=8)
MIXER = ('in_proj.weight', 'conv_weight', 'x_proj_weight', 'dt_proj_weight', 'out_proj.weight')
MIXER_EXEMPT = ('conv_bias', 'dt_proj_bias', 'A_log', 'D')
LINEARS = ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')


@pytest.fixture
def classifier():
    """A tiny hybrid classifier with registers."""
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=BACKBONE | dict(out_type='avg_featmap', num_registers=2),
            head=dict(type='mmpretrain.LinearClsHead', in_channels=16, num_classes=3),
        )
    )


def build(model: nn.Module, wrapper: str = 'OptimWrapper', lr: float = LR, **paramwise):
    cfg = dict(
        type=wrapper,
        optimizer=dict(type='AdamW', lr=lr, weight_decay=DECAY),
        constructor='LayerDecayOptimWrapperConstructor',
        paramwise_cfg=paramwise or None,
    )
    return build_optim_wrapper(model, cfg)


def settings(wrapper) -> dict[str, tuple[float, float]]:
    """Learning rate over the base's and weight decay over the base's by the parameter's name."""
    found = {}
    for group in wrapper.optimizer.param_groups:
        assert group['lr'] == pytest.approx(LR * group['lr_scale'])
        assert len(group['params']) == len(group['param_names'])
        for name in group['param_names']:
            assert name not in found
            found[name] = (round(group['lr'] / LR, 12), group['weight_decay'] / DECAY)
    return found


def expected_of_blocks(layout: str) -> dict[str, tuple[float, float]]:
    depths = len(layout) + 2
    expected = {}
    for i, letter in enumerate(layout):
        lr, block = RATE ** (depths - 2 - i), f'backbone.encoder.blocks.{i}.'
        if letter == 'M':
            expected |= {f'{block}mixer.{name}': (lr, 1) for name in MIXER}
            expected |= {f'{block}mixer.{name}': (lr, 0) for name in MIXER_EXEMPT}
            expected[f'{block}norm.weight'] = (lr, 0)
        else:
            expected |= {f'{block}{name}.weight': (lr, 1) for name in LINEARS}
            expected |= {f'{block}{name}.bias': (lr, 0) for name in LINEARS}
            expected |= {f'{block}{name}': (lr, 0) for name in ('norm1.weight', 'norm1.bias', 'norm2.weight')}
            expected[f'{block}norm2.bias'] = (lr, 0)
    return expected


def test_each_parameter_of_a_hybrid_classifier(classifier):
    # Six depths: embeddings, four blocks, the final norm.
    expected = {
        'backbone.patch_embed.weight': (1 / 32, 1),
        'backbone.patch_embed.bias': (1 / 32, 0),
        'backbone.pos_embed.weight': (1 / 32, 0),
        'backbone.register_tokens': (1 / 32, 0),
        'backbone.register_pos_embed': (1 / 32, 0),
        'backbone.encoder.blocks.0.norm.weight': (1 / 16, 0),
        'backbone.encoder.blocks.0.mixer.in_proj.weight': (1 / 16, 1),
        'backbone.encoder.blocks.0.mixer.D': (1 / 16, 0),
        'backbone.encoder.blocks.2.mixer.A_log': (1 / 4, 0),
        'backbone.encoder.blocks.3.mlp.fc2.weight': (1 / 2, 1),
        'backbone.encoder.norm.weight': (1, 0),
        'head.fc.weight': (1, 1),
        'head.fc.bias': (1, 0),
    }
    blocks = expected_of_blocks('MMMT')
    assert all(expected[name] == blocks[name] for name in expected.keys() & blocks.keys())
    found = settings(build(classifier, layer_decay_rate=RATE))
    assert found == expected | blocks
    assert found.keys() == {name for name, _ in classifier.named_parameters()}


@pytest.mark.parametrize('layout', ['TMMT', 'MTMTM', 'TTT', 'M'])
def test_blocks_of_both_kinds_share_one_count(layout):
    model = nn.ModuleDict(dict(backbone=MODELS.build(BACKBONE | dict(arch=ARCH | dict(layout=layout)))))
    model.backbone = model['backbone']
    found = settings(build(model, layer_decay_rate=RATE))
    assert {name: found[name] for name in found if '.blocks.' in name} == expected_of_blocks(layout)
    # The first block's is rate ** (n - 2), that is, once for each block.
    assert found[
        'backbone.encoder.blocks.0.norm.weight' if layout[0] == 'M' else 'backbone.encoder.blocks.0.norm1.bias'
    ] == (
        RATE ** len(layout),
        0,
    )


def test_equal_settings_are_one_group(classifier):
    groups = build(classifier, layer_decay_rate=RATE).optimizer.param_groups
    assert len({(group['lr'], group['weight_decay']) for group in groups}) == len(groups) == 2 * 6
    groups = build(classifier).optimizer.param_groups
    assert [(group['lr_scale'], group['weight_decay']) for group in groups] == [(1, 0), (1, DECAY)]


def test_decoder_of_a_pretraining_model(build_map):
    model = build_map()
    found = settings(build(model))
    exempt = {name for name, (_, decay) in found.items() if decay == 0}
    assert {'neck.pos_embed.weight', 'neck.mask_token', 'neck.norm.weight', 'head.proj.bias'} <= exempt
    assert not {'neck.embed.weight', 'head.proj.weight', 'neck.blocks.0.attn.kv.weight'} & exempt


def test_norms_of_several_dimensions_and_scalars_do_not_decay(classifier):
    classifier.norm = nn.LayerNorm((2, 3))
    classifier.temperature = nn.Parameter(torch.ones(()))
    found = settings(build(classifier))
    assert found['norm.weight'] == found['temperature'] == (1, 0)


def test_frozen_and_shared_parameters(classifier):
    classifier.backbone.patch_embed.requires_grad_(False)
    classifier.again = classifier.head.fc
    found = settings(build(classifier, layer_decay_rate=RATE))
    assert not any('patch_embed' in name or name.startswith('again') for name in found)
    assert 'head.fc.weight' in found
    classifier.backbone.requires_grad_(False)
    assert settings(build(classifier, layer_decay_rate=RATE)) == {'head.fc.weight': (1, 1), 'head.fc.bias': (1, 0)}


def test_longest_custom_key_decides(classifier):
    keys = {
        'head': dict(lr_mult=10),
        'blocks.3.mlp': dict(decay_mult=2),
        'blocks.3.mlp.fc1': dict(lr_mult=0.1, decay_mult=0),
        'register_tokens': dict(decay_mult=1),
    }
    found = settings(build(classifier, layer_decay_rate=RATE, custom_keys=keys))
    # A key that does not speak of decay leaves the bias exempt.
    assert found['head.fc.weight'] == (10, 1)
    assert found['head.fc.bias'] == (10, 0)
    assert found['backbone.encoder.blocks.3.mlp.fc2.weight'] == (0.5, 2)
    assert found['backbone.encoder.blocks.3.mlp.fc1.weight'] == (0.05, 0)
    assert found['backbone.register_tokens'] == (1 / 32, 1)


def ddp_like(model: nn.Module) -> nn.Module:
    """MMDistributedDataParallel without a process group."""
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = model
    return wrapper


def with_checkpointed_block(model: nn.Module) -> nn.Module:
    model.backbone.encoder.blocks[1] = checkpoint_wrapper(model.backbone.encoder.blocks[1])
    return model


@pytest.mark.parametrize(
    'wrap', [ddp_like, with_checkpointed_block, torch.compile, lambda m: ddp_like(torch.compile(m))]
)
def test_wrapped_models_have_the_groups_of_bare_ones(classifier, wrap):
    expected = settings(build(copy.deepcopy(classifier), layer_decay_rate=RATE))
    assert settings(build(wrap(classifier), layer_decay_rate=RATE)) == expected


def test_compiled_part(classifier):
    expected = settings(build(classifier, layer_decay_rate=RATE))
    classifier.backbone.encoder = torch.compile(classifier.backbone.encoder)
    assert settings(build(classifier, layer_decay_rate=RATE)) == expected


@pytest.fixture
def sharded(classifier):
    """A function that shards the classifier as the first of two processes does; what they say is not waited for."""
    dist.init_process_group('fake', rank=0, world_size=2, store=FakeStore())
    policy = ModuleWrapPolicy({type(block) for block in classifier.backbone.encoder.blocks})
    yield lambda **options: MMFullyShardedDataParallel(
        classifier, auto_wrap_policy=policy, device_id=torch.device('cpu'), **options
    )
    dist.destroy_process_group()


def test_fsdp_shards_have_the_groups_of_whole_parameters(classifier, sharded):
    expected = settings(build(classifier, layer_decay_rate=RATE))
    model = sharded(use_orig_params=True)
    wrapper = build(model, layer_decay_rate=RATE)
    assert settings(wrapper) == expected
    # The trap: a shard has one dimension, whatever it is a part of.
    shards = {id(p): p.ndim for p in model.parameters()}
    assert set(shards.values()) == {1}
    assert {id(p) for group in wrapper.optimizer.param_groups for p in group['params']} == shards.keys()


def test_fsdp_with_flattened_parameters_is_an_error(sharded):
    with pytest.raises(ValueError, match='set use_orig_params=True in model_wrapper'):
        build(sharded(use_orig_params=False), layer_decay_rate=RATE)


@pytest.mark.parametrize('wrapper', ['OptimWrapper', 'AmpOptimWrapper'])
def test_a_schedule_keeps_the_ratios(classifier, wrapper, monkeypatch):
    # mmengine's wrapper for AMP wants a GPU when it is built; its scaler does nothing without one.
    monkeypatch.setattr('mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: True)
    wrapper = build(classifier, wrapper, layer_decay_rate=RATE)
    groups = wrapper.optimizer.param_groups
    warmup = dict(type='LinearLR', start_factor=0.1, begin=0, end=2, by_epoch=False)
    cosine = dict(type='CosineAnnealingLR', eta_min_ratio=0.01, begin=2, end=8, T_max=5, by_epoch=False)
    schedulers = [PARAM_SCHEDULERS.build(cfg | dict(optimizer=wrapper)) for cfg in (warmup, cosine)]
    before = {name: p.detach().clone() for name, p in classifier.named_parameters()}
    bases = []
    for _ in range(8):
        base = next(group['lr'] for group in groups if group['lr_scale'] == 1)
        assert [group['lr'] for group in groups] == pytest.approx([base * group['lr_scale'] for group in groups])
        bases.append(base)
        for parameter in classifier.parameters():
            parameter.grad = torch.ones_like(parameter)
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    assert bases[0] == pytest.approx(0.1 * LR)
    assert max(bases) == pytest.approx(LR)
    assert groups[0]['lr'] == pytest.approx(0.01 * LR * groups[0]['lr_scale'])
    # AdamW moves by its learning rate under a constant gradient: undecayed ones by the sum of theirs.
    moved = {name: (before[name] - p.detach()).mean().item() for name, p in classifier.named_parameters()}
    assert moved['backbone.encoder.norm.weight'] == pytest.approx(sum(bases), rel=1e-4)
    assert moved['backbone.encoder.blocks.0.mixer.D'] == pytest.approx(sum(bases) / 16, rel=1e-4)
    assert moved['backbone.register_tokens'] == pytest.approx(sum(bases) / 32, rel=1e-4)


def test_segmentor(classifier, segmentor_cfg):
    check_dense(MODELS.build(segmentor_cfg()), classifier)


def test_detector(classifier, detector_cfg):
    check_dense(MODELS.build(detector_cfg()), classifier)


def test_blocks_behind_the_last_tap_are_in_no_group(segmentor_cfg):
    model = MODELS.build(segmentor_cfg(backbone=dict(out_indices=(0, 1))))
    found = settings(build(model, layer_decay_rate=RATE))
    blocks = {name.split('.')[3] for name in found if name.startswith('backbone.encoder.blocks.')}
    assert blocks == {'0', '1'}
    # The depths are those of the whole backbone, as its weights were trained in it.
    assert found['backbone.encoder.blocks.1.norm.weight'] == (RATE**3, 0)


def check_dense(model: nn.Module, classifier: nn.Module) -> None:
    """The backbone's settings are those in a classifier; elsewhere the full rate, decay but for biases and norms."""
    found = settings(build(model, layer_decay_rate=RATE))
    in_classifier = settings(build(classifier, layer_decay_rate=RATE))
    assert found.keys() == {name for name, _ in model.named_parameters()}
    outside = {name: p for name, p in model.named_parameters() if not name.startswith('backbone.')}
    assert {name.split('.')[0] for name in outside} >= {'neck'} and len(outside) > 40
    # The first block's is the rate to the power of the depth, the number of blocks.
    assert found['backbone.encoder.blocks.0.norm.weight'] == (RATE ** len(ARCH['layout']), 0)
    groups = {(lr, decay) for lr, decay in found.values()}
    assert groups == {(RATE**power, decay) for power in range(len(ARCH['layout']) + 2) for decay in (0, 1)}
    for name, value in found.items():
        if name in outside:
            assert value == (1, 1 if outside[name].ndim > 1 else 0), name
        else:
            assert value == in_classifier[name], name


class Flat(nn.Linear):
    """A backbone that takes all of its layers for the last one."""

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        return 11, 12


class Model(nn.Module):
    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


@pytest.mark.parametrize(
    ('model', 'paramwise', 'error', 'message'),
    [
        (Model(encoder=Flat(2, 2)), {}, AttributeError, 'Model has no attribute backbone'),
        (
            Model(backbone=nn.Linear(2, 2)),
            dict(layer_decay_rate=0.9),
            AttributeError,
            'backbone of Model: Linear has no method get_layer_depth',
        ),
        (Model(backbone=Flat(2, 2)), dict(layer_decay_rate=0.9), ValueError, 'would have no effect.*of Flat'),
        (
            Model(backbone=Flat(2, 2)),
            dict(norm_decay_mult=0),
            ValueError,
            r"unknown \['norm_decay_mult'\].*_delete_=True",
        ),
        (Model(backbone=Flat(2, 2)), dict(layer_decay_rate=1.5), ValueError, 'layer_decay_rate=1.5'),
        (Model(backbone=Flat(2, 2)), dict(layer_decay_rate=0), ValueError, 'layer_decay_rate=0'),
        (
            Model(backbone=Flat(2, 2)),
            dict(custom_keys=dict(weight=dict(lr_scale=2))),
            ValueError,
            r"custom_keys\['weight'\] has unknown \['lr_scale'\]",
        ),
        (Model(backbone=Flat(2, 2)), dict(custom_keys=['weight']), TypeError, 'custom_keys must be a dict'),
    ],
)
def test_errors_name_the_culprit(model, paramwise, error, message):
    with pytest.raises(error, match=message) as raised:
        build(model, **paramwise)
    assert '\n' not in str(raised.value)


def test_a_rate_of_one_asks_for_no_depths_that_differ():
    assert settings(build(Model(backbone=Flat(2, 2)))) == {'backbone.weight': (1, 1), 'backbone.bias': (1, 0)}


def test_an_optimizer_without_a_rate_is_an_error():
    with pytest.raises(ValueError, match=r'optim_wrapper.optimizer has no lr'):
        build(Model(backbone=Flat(2, 2)), lr=None)


@pytest.fixture
def lines(monkeypatch):
    """What is logged, of every level."""
    logger, records = MMLogger.get_current_instance(), []
    monkeypatch.setattr(logger, 'handle', records.append)
    monkeypatch.setattr(logger, 'level', logging.DEBUG)
    # mmengine's registries log what they look up.
    return lambda: [(r.levelname, r.getMessage()) for r in records if 'registry' not in r.getMessage()]


def test_summary(classifier, lines):
    classifier.head.requires_grad_(False)
    build(classifier, layer_decay_rate=RATE, custom_keys=dict(gamma=dict(lr_mult=2)))
    decayed = sum(p.numel() for p in classifier.parameters() if p.ndim > 1 and p.requires_grad) - sum(
        p.numel()
        for name, p in classifier.named_parameters()
        if p.ndim > 1 and name.endswith(('_bias', '.D', 'A_log', 'pos_embed', 'pos_embed.weight', 'register_tokens'))
    )
    (level, first), *depths, (warned, last) = lines()
    assert (level, warned) == ('INFO', 'WARNING')
    assert first == f'11 parameter groups: learning rates 0.00313 to 0.1, {decayed:,} parameters with weight decay'
    assert [line.split(';')[0] for _, line in depths] == [
        f'depth {depth} of 6: lr_scale {0.5 ** (5 - depth):.3g}' for depth in range(6)
    ]
    assert last == "paramwise_cfg: custom_keys['gamma'] matches no parameter"
