"""The named architectures have the released shapes."""

import pytest
import torch

from mmmap.models import MAPHybrid
from mmmap.models.backbones.map_hybrid import ARCHS
from mmmap.models.backbones.weight_loading import describe_arch
from mmmap.registry import MODELS

# Parameters that act in pretraining, in the released models: encoder, decoder.
RELEASED = {
    'tiny': (9_330_816, 2_004_480),
    'small': (34_881_792, 2_041_344),
    'base': (134_644_224, 2_115_072),
    'large': (473_405_440, 2_164_224),
    'huge': (792_474_624, 2_262_528),
}


def count(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize('arch', ARCHS)
def test_parameter_counts(arch):
    with torch.device('meta'):
        model = MODELS.build(
            dict(
                type='MAP',
                backbone=dict(type='MAPHybrid', arch=arch),
                neck=dict(type='RegionCausalDecoder', in_dim=ARCHS[arch]['embed_dim']),
                head=dict(type='PixelReconstructionHead'),
            )
        )
    assert (count(model.backbone), count(model.neck, model.head)) == RELEASED[arch]


@pytest.mark.parametrize('arch', ARCHS)
def test_registers_of_the_named_architectures(arch):
    with torch.device('meta'):
        model = MODELS.build(dict(type='MAPHybrid', arch=arch))
    width, number = ARCHS[arch]['embed_dim'], 12 if arch in ('tiny', 'small', 'base') else 16
    assert model.num_registers == number
    assert model.register_tokens.shape == model.register_pos_embed.shape == (1, number, width)
    assert model.encoder.layout.count('T') * 3 == model.encoder.layout.count('M')


def test_resolve_arch_gives_a_new_dict():
    MAPHybrid.resolve_arch('tiny')['embed_dim'] = 1
    assert ARCHS['tiny']['embed_dim'] == 192


def test_describe_arch():
    assert describe_arch(192, 'MMMT' * 8, ARCHS) == "tiny (width 192, layout 'MMMT' * 8)"
    assert describe_arch(192, 'MTM', ARCHS) == "custom (width 192, layout 'MTM')"
    assert describe_arch(8, 'M', ARCHS) == "custom (width 8, layout 'M')"


@pytest.mark.parametrize(
    ('arch', 'culprits'),
    [
        ('bas', ['bas', 'tiny', 'huge']),
        (dict(embed_dim=32, layout='MT'), ['num_heads']),
        (dict(embed_dim=32, layout='M', num_heads=4, num_register=3), ['num_register']),
        (dict(embed_dim=32, layout='MXT', num_heads=4), ['MXT']),
        (dict(embed_dim=32, layout='', num_heads=4), ['layout']),
        (dict(embed_dim=32, layout='MT', num_heads=5), ['num_heads=5', '32']),
        (dict(embed_dim=32, layout='MT', num_heads=0), ['num_heads=0']),
    ],
)
def test_wrong_arch_is_named(arch, culprits):
    with pytest.raises(ValueError) as error:
        MODELS.build(dict(type='MAPHybrid', arch=arch, out_type='raw'))
    message = str(error.value)
    assert '\n' not in message
    assert all(culprit in message for culprit in culprits), message
