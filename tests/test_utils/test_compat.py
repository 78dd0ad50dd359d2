import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import HistoryBuffer
from mmpretrain.utils import dependency

from mmmap.utils import compat


def test_torchvision_schemas_in_every_state(tmp_path):
    # A process of its own: this one has imported torchvision. The module is loaded alone, as mmmap runs the cures.
    for name, library in (('broken', b'not a library'), ('healthy', b'')):
        package = tmp_path / name / 'torchvision'
        package.mkdir(parents=True)
        (package / '__init__.py').touch()
        (package / '_C.so').write_bytes(library)
    script = f"""
        import importlib.util, sys
        import torch
        spec = importlib.util.spec_from_file_location('compat', {compat.__file__!r})
        compat = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(compat)
        def declared():
            return hasattr(torch.ops.torchvision, 'nms') and hasattr(torch.ops.torchvision, 'qnms')

        find_spec = importlib.util.find_spec
        importlib.util.find_spec = lambda name: None
        assert not compat.make_torchvision_importable() and not declared(), 'absent'
        importlib.util.find_spec = find_spec

        sys.path.insert(0, {str(tmp_path / 'healthy')!r})
        load_library, loaded = torch.ops.load_library, []
        torch.ops.load_library = loaded.append
        assert not compat.make_torchvision_importable() and not declared(), 'healthy'
        assert loaded == [{str(tmp_path / 'healthy/torchvision/_C.so')!r}], loaded
        torch.ops.load_library = load_library

        sys.path.insert(0, {str(tmp_path / 'broken')!r})
        importlib.invalidate_caches()
        assert compat.make_torchvision_importable() and declared(), 'broken'
        assert compat.make_torchvision_importable(), 'again'
    """
    result = subprocess.run([sys.executable, '-c', textwrap.dedent(script)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def _pretend_installed(monkeypatch, **versions):
    monkeypatch.setattr(compat, '_installed_version', lambda name: versions.get(name.replace('-', '_')))


def test_multimodal_is_switched_off_beside_new_transformers(monkeypatch):
    monkeypatch.setattr(dependency, 'WITH_MULTIMODAL', True)
    _pretend_installed(monkeypatch, transformers='4.46.0')
    assert not compat.switch_off_broken_multimodal()
    assert dependency.WITH_MULTIMODAL
    _pretend_installed(monkeypatch, transformers='5.1.0')
    with pytest.warns(UserWarning, match=r'multimodal models are switched off.*5\.1\.0'):
        assert compat.switch_off_broken_multimodal()
    assert not dependency.WITH_MULTIMODAL
    assert not compat.switch_off_broken_multimodal(), 'said twice'


def test_distribution_names_follow_what_is_installed(monkeypatch):
    for module in ('mmpretrain', 'mmseg', 'mmdet'):
        monkeypatch.setitem(MODULE2PACKAGE, module, 'before')
    _pretend_installed(monkeypatch, onedl_mmsegmentation='1.4.2', mmdet='3.3.0', onedl_mmdetection='3.5.1')
    assert compat.name_installed_distributions() == {'mmseg': 'onedl-mmsegmentation'}
    assert MODULE2PACKAGE['mmseg'] == 'onedl-mmsegmentation'
    assert MODULE2PACKAGE['mmdet'] == MODULE2PACKAGE['mmpretrain'] == 'before'


def test_local_loader_reads_what_mmengine_saves(tmp_path):
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    content = {'state_dict': {'weight': torch.ones(2)}, 'message_hub': {'loss': buffer, 'best': np.float64(0.5)}}
    torch.save(content, tmp_path / 'epoch_1.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    loaded = compat.load_local_checkpoint(str(tmp_path / 'epoch_1.pth'), 'cpu')
    assert loaded['message_hub']['loss'].statistics('mean') == 2.0
    assert loaded['message_hub']['best'] == 0.5


class _Attack:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_local_loader_runs_nothing(tmp_path):
    marker = tmp_path / 'was_run'
    torch.save({'state_dict': _Attack(Path.touch, marker)}, tmp_path / 'touch.pth')
    torch.save({'state_dict': _Attack(getattr, HistoryBuffer, '__init__')}, tmp_path / 'getattr.pth')
    with pytest.raises(RuntimeError, match=r'touch\.pth holds \S+, which is not allowed'):
        compat.load_local_checkpoint(str(tmp_path / 'touch.pth'))
    assert not marker.exists()
    with pytest.raises((RuntimeError, ValueError), match=r'__init__|cannot be loaded safely'):
        compat.load_local_checkpoint(str(tmp_path / 'getattr.pth'))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        compat.load_local_checkpoint('nowhere.pth')


def test_loader_is_replaced_only_where_mmengine_lacks_one(monkeypatch):
    from mmengine.runner import checkpoint

    monkeypatch.setattr(checkpoint.CheckpointLoader, '_schemes', dict(checkpoint.CheckpointLoader._schemes))
    monkeypatch.setattr(checkpoint, '_safe_torch_load', torch.load, raising=False)
    assert not compat.make_checkpoints_loadable()
    monkeypatch.delattr(checkpoint, '_safe_torch_load')
    assert compat.make_checkpoints_loadable() == (torch.__version__ >= '2.6')
    loader = checkpoint.CheckpointLoader._get_checkpoint_loader('work_dirs/epoch_1.pth')
    assert loader is compat.load_local_checkpoint
