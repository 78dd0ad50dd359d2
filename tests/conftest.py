"""What all tests share: a seed, a clean message hub, and small models."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mmengine.hub import get_config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from torch import nn

# The models of the tests are so small that a second thread only waits for the first, and on busy cores for long.
torch.set_num_threads(1)

DATA = Path(__file__).parent / 'data'


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--run-slow', action='store_true', help='run the tests marked slow as well')


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption('--run-slow'):
        for item in items:
            if 'slow' in item.keywords:
                item.add_marker(pytest.mark.skip(reason='slow: --run-slow runs it'))


@pytest.fixture(scope='session', autouse=True)
def logger() -> MMLogger:
    """mmengine's logger, made before a test captures the stream that it would keep."""
    return MMLogger.get_current_instance()


@pytest.fixture(autouse=True)
def seed() -> None:
    """Make every test independent of those before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_traces() -> Iterator[None]:
    """Each test starts and ends without a default scope and a message hub: a run, one of a module's fixture too, sets
    them for the whole process."""

    def clear() -> None:
        for cls in (DefaultScope, MessageHub):
            cls._instance_dict.clear()

    clear()
    yield
    clear()


@pytest.fixture
def message_hub() -> Iterator[MessageHub]:
    """A hub of a run that has just started, as the current one; gone afterwards."""
    name = 'tests'
    hub = MessageHub.get_instance(name)
    hub.update_info_dict(dict(seed=7, iter=0))
    yield hub
    MessageHub._instance_dict.pop(name, None)


@pytest.fixture(scope='session')
def data_dir() -> Path:
    """Where the stored fixtures are."""
    return DATA


@pytest.fixture
def map_cfg() -> Callable[..., dict]:
    """A function that gives the config of a MAP model of 64x64 images, by default a very small one."""

    def make(layout: str = 'MMMT', attention: str = 'region_causal', **changes) -> dict:
        backbone = dict(
            type='MAPHybrid',
            arch=dict(embed_dim=32, layout=layout, num_heads=4, d_state=4),
            img_size=64,
            out_type='raw',
        )
        neck = dict(
            type='RegionCausalDecoder', in_dim=32, grid=4, embed_dim=32, depth=2, num_heads=4, attention=attention
        )
        head = dict(type='PixelReconstructionHead', in_dim=32)
        return dict(type='MAP', backbone=backbone, neck=neck, head=head) | changes

    return make


@pytest.fixture
def build_map(map_cfg: Callable[..., dict]) -> Callable[..., nn.Module]:
    """A function that builds what ``map_cfg`` tells."""
    from mmmap.registry import MODELS

    return lambda *args, **kwargs: MODELS.build(map_cfg(*args, **kwargs))


def _dense_parts(backbone: dict | None, neck: dict | None) -> dict:
    arch = dict(embed_dim=16, layout='MMMT', num_heads=2, d_state=4)
    small = dict(type='MAPHybrid', arch=arch, img_size=64, out_type='featmap')
    return dict(
        backbone=small | (backbone or {}),
        neck=dict(type='SimpleFeaturePyramid', in_channels=16, out_channels=8) | (neck or {}),
    )


@pytest.fixture
def segmentor_cfg() -> Iterator[Callable[..., dict]]:
    """A function that gives mmseg's own UPerNet with an auxiliary FCN head, made small, on a hybrid and a pyramid."""
    pytest.importorskip('mmseg.models')

    def make(backbone: dict | None = None, neck: dict | None = None) -> dict:
        cfg = get_config('mmseg::_base_/models/upernet_vit-b16_ln_mln.py').model
        head = dict(num_classes=3, channels=8, norm_cfg=dict(type='GN', num_groups=2))
        cfg.decode_head.update(head, in_channels=[8] * 4)
        cfg.auxiliary_head.update(head, in_channels=8)
        cfg.pretrained = None
        cfg.data_preprocessor.update(type='mmseg.SegDataPreProcessor', size=(64, 96), test_cfg=dict(size_divisor=16))
        return {**cfg, 'type': 'mmseg.EncoderDecoder', **_dense_parts(backbone, neck)}

    # Whatever scope an earlier test left.
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield make


@pytest.fixture
def detector_cfg() -> Iterator[Callable[..., dict]]:
    """A function that gives mmdet's own Mask R-CNN, made small, on a hybrid and a pyramid."""
    pytest.importorskip('mmdet.models')

    def make(backbone: dict | None = None, neck: dict | None = None) -> dict:
        cfg = get_config('mmdet::_base_/models/mask-rcnn_r50_fpn.py').model
        cfg.data_preprocessor.type = 'mmdet.DetDataPreprocessor'
        cfg.rpn_head.update(in_channels=8, feat_channels=8)
        for extractor in (cfg.roi_head.bbox_roi_extractor, cfg.roi_head.mask_roi_extractor):
            extractor.out_channels = 8
        cfg.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16, num_classes=3)
        cfg.roi_head.mask_head.update(in_channels=8, conv_out_channels=8, num_convs=1, num_classes=3)
        return {**cfg, 'type': 'mmdet.MaskRCNN', **_dense_parts(backbone, dict(with_max_pool=True) | (neck or {}))}

    with DefaultScope.overwrite_default_scope('mmdet'):
        yield make


@pytest.fixture
def build_backbone() -> Callable[..., nn.Module]:
    """A function that builds a small MAPHybrid of 64x64 images; keywords override or add arguments."""
    from mmmap.models.backbones import MAPHybrid

    def build(layout: str = 'MMMT', **changes) -> nn.Module:
        arch = dict(embed_dim=32, layout=layout, num_heads=4, num_registers=3, d_state=4)
        return MAPHybrid(**(dict(arch=arch, img_size=64) | changes))

    return build
