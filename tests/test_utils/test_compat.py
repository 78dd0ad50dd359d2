import subprocess
import sys
import textwrap

import pytest
from mmengine.config.utils import MODULE2PACKAGE
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
