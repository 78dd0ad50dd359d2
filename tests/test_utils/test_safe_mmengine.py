"""Every way of mmengine to a file of others."""

import sys
import types
from pathlib import Path

import mmengine
import pytest
import torch
from evil_files import evil_checkpoint, evil_pickle
from mmengine.dataset import BaseDataset
from mmengine.infer import BaseInferencer
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, checkpoint, load_checkpoint
from torch import nn

from mmmap.utils import safe_mmengine
from mmmap.utils.errors import RefusedFileError, UserError


class _Net(BaseModule):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.net = nn.Linear(1, 1)


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A file that would make another one; also under an address, in a bucket and in a model zoo."""
    path = evil_checkpoint(tmp_path / 'evil.pth', tmp_path / 'marker')

    def download(url, target, *args, **kwargs):
        Path(target).write_bytes(Path(path).read_bytes())

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    monkeypatch.setattr(checkpoint, 'get_torchvision_models', lambda: dict(net='https://host/net.pth'))
    monkeypatch.setattr(checkpoint, 'get_mmcls_models', lambda: dict(net='https://host/net.pth'))
    monkeypatch.setattr(checkpoint, 'get_external_models', lambda: dict(net='https://host/net.pth', file='evil.pth'))
    monkeypatch.setattr(checkpoint, 'get_deprecated_model_names', dict)
    bucket = types.SimpleNamespace(get=lambda name: Path(path).read_bytes())
    monkeypatch.setattr(checkpoint, 'get_file_backend', lambda *args, **kwargs: bucket)
    cloud = types.ModuleType('pavi')
    model = types.SimpleNamespace(name='evil.pth', download=lambda target: download('', target))
    cloud.modelcloud = types.SimpleNamespace(get=lambda name: model)
    monkeypatch.setitem(sys.modules, 'pavi', cloud)
    return path


@pytest.mark.parametrize(
    'name',
    [
        'LOCAL',
        'http://host/evil.pth',
        'https://host/evil.pth',
        'pavi://evil',
        's3://bucket/evil.pth',
        'cluster:s3://bucket/evil.pth',
        'petrel://bucket/evil.pth',
        'modelzoo://net',
        'torchvision://net',
        'open-mmlab://net',
        'openmmlab://net',
        'open-mmlab://file',
        'mmcls://net',
    ],
)
def test_every_scheme(evil, tmp_path, name):
    name = evil if name == 'LOCAL' else name
    for load in (CheckpointLoader.load_checkpoint, lambda name: load_checkpoint(nn.Linear(1, 1), name)):
        with pytest.raises(RefusedFileError, match=r'holds \S*open,') as error:
            load(name)
        assert str(error.value).startswith(f'{name} holds')
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize('name', ['LOCAL', 'https://host/evil.pth', 'torchvision://net'])
def test_a_scheme_can_be_trusted(evil, tmp_path, name, monkeypatch):
    name = evil if name == 'LOCAL' else name
    monkeypatch.setenv('MMMAP_TRUST_CHECKPOINT', name)
    CheckpointLoader.load_checkpoint(name)
    assert (tmp_path / 'marker').exists()


@pytest.mark.parametrize('prefix', [None, 'net.'])
def test_initialisation(evil, tmp_path, prefix):
    with pytest.raises(RefusedFileError):
        _Net(init_cfg=dict(type='Pretrained', checkpoint=evil, prefix=prefix)).init_weights()
    assert not (tmp_path / 'marker').exists()


def test_the_loaders_of_mmengine_called_by_name(evil, tmp_path):
    for load in (checkpoint.load_from_local, getattr(checkpoint, '_safe_torch_load', checkpoint.load_from_local)):
        with pytest.raises(RefusedFileError):
            load(evil, 'cpu')
    assert not (tmp_path / 'marker').exists()


def test_text_of_a_config_is_not_run(tmp_path):
    text = f'open({str(tmp_path / "marker")!r}, "w")\nmodel = dict()'
    content = dict(state_dict=dict(weight=torch.ones(1, 1)), meta=dict(config=text, cfg=text, epoch=3))
    torch.save(content, tmp_path / 'planted.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'planted.pth'))
    assert loaded['meta'] == dict(cfg=text, epoch=3), 'Runner.resume runs meta.config'

    class Inferencer(BaseInferencer):
        def _init_pipeline(self, cfg):
            return None

        visualize = postprocess = None

    with pytest.raises(RefusedFileError, match=r'planted\.pth stores its config as Python code'):
        Inferencer(weights=str(tmp_path / 'planted.pth'), scope='mmengine')
    assert not (tmp_path / 'marker').exists()


def test_contents_are_checked_whatever_the_scheme(tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    CheckpointLoader.register_scheme('mine://', loader=lambda name, where: dict(w=torch.tensor(torch.nan)), force=True)
    CheckpointLoader._schemes = dict(sorted(CheckpointLoader._schemes.items(), reverse=True))
    with pytest.raises(UserError, match=r'mine://net is of no use: w is not finite'):
        CheckpointLoader.load_checkpoint('mine://net')


def test_annotations(tmp_path):
    evil_pickle(tmp_path / 'ann.pkl', tmp_path / 'marker')
    with pytest.raises(RefusedFileError, match=r'ann\.pkl holds'):
        BaseDataset(ann_file=str(tmp_path / 'ann.pkl'))
    assert not (tmp_path / 'marker').exists()
    mmengine.dump(dict(metainfo={}, data_list=[dict(a=1)]), tmp_path / 'ann.pkl')
    assert BaseDataset(ann_file=str(tmp_path / 'ann.pkl'), data_prefix={})[0]['a'] == 1


def test_once_is_enough():
    assert not safe_mmengine.install()
