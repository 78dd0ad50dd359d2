import pytest
import torch
from torch import nn

from mmmap.apis.adapt import Backbone, choose_backbone
from mmmap.models.backbones import MAPHybrid
from mmmap.utils.errors import UserError

SMALL = "dict(embed_dim=16, layout='MTMT', num_heads=2)"


def save(path, arch, with_metadata=True):
    weights = nn.ModuleDict(dict(backbone=MAPHybrid(arch, num_registers=2))).state_dict()
    if not with_metadata:
        weights = dict(weights)
    torch.save(dict(state_dict=weights), path)
    return str(path)


@pytest.mark.parametrize('with_metadata', [True, False])
def test_a_checkpoint_tells_the_size(tmp_path, with_metadata):
    path = save(tmp_path / 'a.pth', 'tiny', with_metadata)
    backbone = choose_backbone(None, None, path)
    assert backbone.options == dict(arch='tiny')
    assert backbone.config()['init_cfg'] == dict(type='Pretrained', checkpoint=path, prefix='backbone.')


def test_a_checkpoint_of_no_named_size(tmp_path):
    path = save(tmp_path / 'a.pth', dict(embed_dim=16, layout='MT', num_heads=2))
    with pytest.raises(UserError, match=r"width 16 and layout 'MT'.*--backbone CONFIG"):
        choose_backbone(None, None, path)


def test_the_backbone_of_a_config(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text(
        f"model = dict(type='MAP', backbone=dict(type='MAPHybrid', arch={SMALL}, patch_size=8, img_size=64, "
        "out_type='raw', drop_path_rate=0.5))\ndata_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6])\n"
    )
    backbone = choose_backbone(None, str(path), None)
    assert (backbone.width, backbone.patch_size) == (16, 8)
    assert backbone.normalization == dict(mean=[1, 2, 3], std=[4, 5, 6])
    # What the new task decides is not taken over.
    assert backbone.options.keys() == {'arch', 'patch_size', 'img_size'}


@pytest.mark.parametrize(
    'arch, config, pretrained, words',
    [
        (None, None, None, 'no backbone: give --arch'),
        ('tinny', None, None, '--arch tinny is unknown: choose from tiny,'),
        ('tiny', 'a.py', None, 'both name the backbone'),
        ('tiny', None, 'missing.pth', 'checkpoint not found: missing.pth'),
        (None, 'missing.py', None, 'config file not found: missing.py'),
        (None, None, 'https://x/y.pth', 'give its size with --arch'),
    ],
)
def test_wrong_options(arch, config, pretrained, words):
    with pytest.raises(UserError, match=words):
        choose_backbone(arch, config, pretrained)


def test_a_config_of_another_backbone(tmp_path):
    (tmp_path / 'a.py').write_text("model = dict(type='A', backbone=dict(type='ResNet'))\n")
    with pytest.raises(UserError, match=r"a.py: its model.backbone.type is 'ResNet', not MAPHybrid"):
        choose_backbone(None, str(tmp_path / 'a.py'), None)


def test_a_checkpoint_of_another_model(tmp_path):
    torch.save(dict(state_dict={'backbone.conv.weight': torch.zeros(1)}), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='no weights of a MAPHybrid'):
        choose_backbone(None, None, str(tmp_path / 'a.pth'))


@pytest.mark.parametrize('number, taps', [(1, -1), (2, (15, 31)), (3, (9, 20, 31)), (4, (7, 15, 23, 31))])
def test_taps_are_equal_parts_of_the_depth_apart(number, taps):
    assert Backbone(dict(arch='tiny')).taps(number) == taps
