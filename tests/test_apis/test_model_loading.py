"""Models from configs and checkpoints."""

import pytest
import torch
from mmengine.config import Config

from mmmap.apis import build_model, build_stored_model, load_weights
from mmmap.utils.errors import UserError


def test_the_preprocessor_of_the_config_unless_the_model_has_one(cfg):
    assert build_model(cfg).data_preprocessor.mean.flatten().tolist() == [10.0] * 3
    cfg.model.data_preprocessor = dict(type='SelfSupDataPreprocessor', mean=[7.0] * 3, std=[2.0] * 3, to_rgb=True)
    assert build_model(cfg).data_preprocessor.mean.flatten().tolist() == [7.0] * 3
    assert '_scope_' not in cfg.model
    with pytest.raises(UserError, match='has no model'):
        build_model(Config(dict(train_cfg={})))


def test_weights_must_fit(cfg, tmp_path):
    model = build_model(cfg).train()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'whole.pth')
    state = build_model(cfg).state_dict()
    loaded = load_weights(build_model(cfg), str(tmp_path / 'whole.pth'))
    assert not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )
    del state['head.proj.bias']
    torch.save(dict(state_dict=state), tmp_path / 'part.pth')
    with pytest.raises(RuntimeError, match=r'head\.proj\.bias'):
        load_weights(build_model(cfg), str(tmp_path / 'part.pth'))
    with pytest.raises(UserError, match='stores no model config'):
        build_stored_model(str(tmp_path / 'part.pth'))
