import pytest
from mmengine.config import Config


@pytest.fixture
def cfg(map_cfg):
    preprocessor = dict(type='SelfSupDataPreprocessor', mean=[10.0] * 3, std=[2.0] * 3, to_rgb=True)
    return Config(dict(model=map_cfg(), data_preprocessor=preprocessor, default_scope='mmpretrain'))
