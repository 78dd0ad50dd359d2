"""A small backbone, and small bases of installed kinds, which take seconds less than the installed ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from mmmap.apis.adapt import Backbone, adapt_config, read_base

SMALL = dict(arch=dict(embed_dim=16, layout='MTMT', num_heads=2, d_state=4))


@pytest.fixture
def small_backbone() -> Backbone:
    return Backbone(dict(SMALL))


@pytest.fixture
def write_base(tmp_path: Path) -> Callable[[str], str]:
    """A function that writes a config and returns the name of its file."""

    def write(text: str, name: str = 'base.py') -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def adapted(tmp_path: Path, small_backbone: Backbone, write_base: Callable) -> Callable[..., Config]:
    """A function that adapts a base, given by its text or name, and reads what was written."""
    pytest.importorskip('mmseg.models')
    pytest.importorskip('mmdet.models')

    def adapt(text: str, backbone: Backbone | None = None) -> Config:
        base = read_base(text if '::' in text.split('\n')[0][:14] else write_base(text))
        out = tmp_path / 'child.py'
        adapt_config(base, backbone or small_backbone, out, 'A test.')
        return Config.fromfile(out)

    return adapt


@pytest.fixture
def retinanet() -> str:
    """mmdet's RetinaNet, of ResNet-18 and narrow heads."""
    return """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(depth=18, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=16),
    bbox_head=dict(num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1),
)
"""


@pytest.fixture
def fcos() -> str:
    """mmdet's FCOS, made as small."""
    return """
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
model = dict(
    backbone=dict(depth=18, style='pytorch', init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=32),
    bbox_head=dict(num_classes=3, in_channels=32, feat_channels=32, stacked_convs=1),
)
"""


@pytest.fixture
def pspnet() -> str:
    """mmseg's PSPNet, which reads the last two of four maps."""
    return """
_base_ = 'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-769x769.py'
model = dict(
    backbone=dict(depth=18),
    decode_head=dict(in_channels=512, channels=16, num_classes=3),
    auxiliary_head=dict(in_channels=256, channels=8, num_classes=3),
)
"""


@pytest.fixture
def resnet() -> str:
    """mmpretrain's ResNet on CIFAR-10, without a data set."""
    return """
_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
model = dict(backbone=dict(base_channels=16, stem_channels=16), head=dict(in_channels=128))
"""
