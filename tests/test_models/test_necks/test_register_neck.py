"""How registers become one vector, and what the neck refuses."""

import pytest
import torch
from mmengine.registry import DefaultScope

from mmmap.models.necks import RegisterNeck
from mmmap.registry import MODELS


def registers(batch: int = 2, number: int = 3, width: int = 8) -> torch.Tensor:
    return torch.randn(batch, number, width)


def test_without_reduction_registers_are_only_joined():
    neck = RegisterNeck(in_dim=8, num_registers=3)
    x = registers()
    (joined,) = neck((x,))
    assert joined.shape == (2, neck.out_dim) == (2, 24)
    assert torch.equal(joined, torch.cat([x[:, 0], x[:, 1], x[:, 2]], dim=1))
    assert not list(neck.parameters())
    assert not neck.state_dict()


@pytest.mark.parametrize('reduction', [2, 4, 8])
def test_reduction_narrows_joins_and_normalises(reduction):
    neck = RegisterNeck(in_dim=8, num_registers=3, reduction=reduction, norm_eps=1e-2)
    narrow = 8 // reduction
    assert {name: tuple(p.shape) for name, p in neck.named_parameters()} == {
        'proj.weight': (narrow, 8),
        'norm.weight': (3 * narrow,),
    }
    torch.nn.init.normal_(neck.norm.weight)
    x = registers() / 10  # So small that the epsilon shows.
    (joined,) = neck((x,))
    assert joined.shape == (2, neck.out_dim) == (2, 3 * narrow)
    for sample, ours in zip(x.double(), joined, strict=True):
        vector = torch.cat([neck.proj.weight.double() @ register for register in sample])
        expected = vector / (vector.square().mean() + 1e-2).sqrt() * neck.norm.weight
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)


def test_norm_eps_is_the_released_one():
    assert RegisterNeck(in_dim=8, num_registers=3, reduction=2).norm.eps == 1e-5


def test_each_tapped_block_is_joined():
    neck = RegisterNeck(in_dim=8, num_registers=3, reduction=2)
    first, last = registers(), registers()
    outs = neck((first, last))
    assert isinstance(outs, tuple)
    for out, x in zip(outs, (first, last), strict=True):
        assert torch.equal(out, neck((x,))[0])


def test_gradients_reach_registers_and_weights():
    neck = RegisterNeck(in_dim=8, num_registers=3, reduction=2)
    x = registers().requires_grad_()
    neck((x,))[0].pow(3).sum().backward()
    for tensor in (x, *neck.parameters()):
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmseg'])
def test_takes_what_the_backbone_gives(scope, build_backbone):
    with DefaultScope.overwrite_default_scope(scope):
        neck = MODELS.build(dict(type='RegisterNeck', in_dim=32, num_registers=3, reduction=4))
    backbone = build_backbone(out_indices=(1, 3))
    outs = neck(backbone(torch.randn(2, 3, 64, 64)))
    assert [out.shape for out in outs] == [(2, 24)] * 2


@pytest.mark.parametrize(
    ('options', 'culprit'),
    [
        (dict(reduction=3), 'reduction=3: must be a positive divisor of in_dim=8'),
        (dict(reduction=16), 'reduction=16'),
        (dict(reduction=0), 'reduction=0'),
        (dict(reduction=-2), 'reduction=-2'),
        (dict(num_registers=0), 'num_registers=0'),
        (dict(in_dim=0), 'in_dim=0'),
    ],
)
def test_arguments_out_of_range_are_named(options, culprit):
    with pytest.raises(ValueError, match=culprit):
        RegisterNeck(**(dict(in_dim=8, num_registers=3) | options))


@pytest.mark.parametrize('reduction', [1, 2])
@pytest.mark.parametrize('shape', [(2, 4, 8), (2, 3, 16), (2, 8, 3), (2, 24), (2, 8, 2, 2)])
def test_another_shape_is_named(shape, reduction):
    neck = RegisterNeck(in_dim=8, num_registers=3, reduction=reduction)
    with pytest.raises(ValueError, match=r'expects \(B, 3, 8\)') as error:
        neck((torch.zeros(shape),))
    assert str(shape) in str(error.value)
    assert '\n' not in str(error.value)


def test_a_bare_tensor_is_refused():
    with pytest.raises(TypeError, match=r'tuple of tensors.*\(2, 3, 8\)'):
        RegisterNeck(in_dim=8, num_registers=3)(registers())
