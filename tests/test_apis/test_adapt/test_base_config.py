import pytest

from mmmap.apis.adapt import read_base
from mmmap.utils.errors import UserError


@pytest.mark.parametrize(
    'name, words',
    [
        ('mmpretrain::resnet/resnet50_8xb23_in1k.py', 'near are mmpretrain::resnet/resnet50_8xb32_in1k.py'),
        ('mmpretrain::resnet50_8xb32_in1k.py', 'near are mmpretrain::resnet/resnet50_8xb32_in1k.py'),
        ('mmpretrain::qqqqqqqq.py', 'its configs are in '),
        ('mmpretrian::resnet/a.py', "'mmpretrian' is none of .*did you mean mmpretrain::resnet/a.py"),
        ('no_such_file.py', 'config file not found: no_such_file.py; installed configs are written PACKAGE::PATH'),
    ],
)
def test_wrong_names(name, words):
    with pytest.raises(UserError, match=words):
        read_base(name)


def test_a_near_file_is_named(write_base):
    path = write_base('model = dict()', 'retinanet_own.py')
    with pytest.raises(UserError, match=f'near are {path}'):
        read_base(path.replace('own', 'onw'))


@pytest.mark.parametrize(
    'text, words',
    [
        ('from mmengine.config import read_base\nwith read_base():\n    from .a import *\n', 'new style'),
        ('model = dict(\n', 'line 1: SyntaxError'),
        ("default_scope = 'mmpose'\nmodel = dict(type='A')\n", "default_scope='mmpose': must be one of"),
        ("default_scope = 'mmpretrain'\n", 'has no model'),
    ],
)
def test_configs_that_nothing_can_inherit_from(write_base, text, words):
    with pytest.raises(UserError, match=words):
        read_base(write_base(text))


def test_a_file_is_named_from_the_folder_of_the_child(write_base, tmp_path):
    base = read_base(write_base("model = dict(type='A')\n"))
    (tmp_path / 'a').mkdir()
    assert base.reference(tmp_path / 'a') == '../base.py'
