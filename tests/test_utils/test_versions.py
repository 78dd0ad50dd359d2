import importlib.util
import sys
from types import SimpleNamespace

import pytest

from mmmap.utils import versions


@pytest.mark.parametrize('module', sorted(versions.REQUIREMENTS))
def test_missing_package_is_named_with_a_command(monkeypatch, module):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == module else find_spec(name))
    with pytest.raises(ImportError) as error:
        versions.check_installed()
    message = str(error.value)
    assert '\n' not in message
    assert module in message
    assert f'pip install {versions.REQUIREMENTS[module][2]}' in message


@pytest.mark.parametrize(('module', 'found'), [('torch', '2.1.0'), ('mmcv', '1.7.2'), ('mmpretrain', '2.0.0')])
def test_wrong_version_is_named_with_the_range(monkeypatch, module, found):
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(__version__=found))
    with pytest.raises(ImportError, match=rf'{module}>=.*found {found}.*pip install'):
        versions.check_version(module)


@pytest.mark.parametrize(('module', 'found'), [('torch', '2.6.0+cu124'), ('mmengine', '0.10.7'), ('mmcv', '2.3.6')])
def test_versions_in_the_range_pass(monkeypatch, module, found):
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(__version__=found))
    versions.check_version(module)


@pytest.mark.parametrize('module', sorted(versions.TASK_LIBRARIES))
def test_missing_task_library_is_named_with_a_command(monkeypatch, module):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(
        ImportError, match=f'^{module} is not installed: run `pip install {versions.TASK_LIBRARIES[module]}`$'
    ):
        versions.check_task_library(module)


def test_task_library_beside_an_mmcv_without_operators(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name)
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    with pytest.raises(
        ImportError, match=r'mmdet needs mmcv with its compiled operators.*--force-reinstall onedl-mmcv'
    ):
        versions.check_task_library('mmdet')


def test_task_library_that_does_not_import(monkeypatch, tmp_path):
    (tmp_path / 'mmdet.py').write_text('assert False, "mmcv==2.3.6 is used but incompatible"')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'mmdet', raising=False)
    monkeypatch.setitem(sys.modules, 'mmcv._ext', SimpleNamespace())
    with pytest.raises(ImportError, match=r'mmdet cannot be imported: mmcv==2\.3\.6 is used but incompatible'):
        versions.check_task_library('mmdet')
