"""Names of components, bare and with a scope, in every registry and config."""

import mmpretrain.registry
import pytest
from mmengine import Config
from mmengine.registry import DefaultScope

import mmmap.registry
from mmmap.engine.config_check import check_config
from mmmap.registry import MODELS
from mmmap.utils.errors import UserError

OURS = [
    (name, key)
    for name in mmmap.registry.__all__
    for key, kind in getattr(mmmap.registry, name).module_dict.items()
    if kind.__module__.startswith('mmmap.')
]


@pytest.mark.parametrize(('name', 'key'), OURS, ids=[key for _, key in OURS])
def test_a_component_has_its_scope(name, key):
    for registry in (getattr(mmmap.registry, name), getattr(mmpretrain.registry, name)):
        assert registry.get(f'mmmap.{key}') is registry.get(key) is not None


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmmap'])
def test_a_model_of_scoped_names(scope):
    arch = dict(embed_dim=16, layout='MT', num_heads=2)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(
            dict(
                type='mmmap.MAP',
                backbone=dict(type='mmmap.MAPHybrid', arch=arch, img_size=32),
                neck=dict(type='mmmap.RegionCausalDecoder', embed_dim=16, num_heads=2),
                head=dict(type='mmmap.PixelReconstructionHead'),
            )
        )
    assert type(model.backbone) is MODELS.get('MAPHybrid')


def scoped(value):
    """The same part of a config with the scope in front of each name of ours."""
    if isinstance(value, dict):
        return {k: f'mmmap.{v}' if k == 'type' and ('MODELS', v) in OURS else scoped(v) for k, v in value.items()}
    return [scoped(v) for v in value] if isinstance(value, list | tuple) else value


def test_a_config_of_scoped_names_is_checked_alike():
    cfg = Config.fromfile('configs/map/map_hybrid-tiny-p16_8xb256-amp-coslr-1600e_in1k.py')
    cfg.model = scoped(cfg.model.to_dict())
    assert cfg.model.type == 'mmmap.MAP' and cfg.model.backbone.type == 'mmmap.MAPHybrid'
    assert check_config(cfg) == []
    cfg.model.backbone.weight_init = 5
    with pytest.raises(UserError, match=r'model\.backbone\.weight_init'):
        check_config(cfg)
