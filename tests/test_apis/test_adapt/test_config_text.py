import pytest
from mmengine.config import Config

from mmmap.apis.adapt.config_text import config_text, difference, without_scope

BASE = dict(
    model=dict(type='A', part=dict(type='B', width=3, deep=dict(x=1)), parts=[dict(type='C', x=1)], none=None),
    lr=0.1,
)


@pytest.mark.parametrize(
    'change',
    [
        pytest.param(lambda new: None, id='nothing'),
        pytest.param(lambda new: new['model'].update(part=dict(type='B', width=4, deep=dict(x=1))), id='value'),
        pytest.param(lambda new: new['model'].update(part=dict(type='D', width=4)), id='another type'),
        pytest.param(lambda new: new['model']['part'].pop('width'), id='a key less'),
        pytest.param(lambda new: new['model']['part'].update(more=dict(y=2)), id='a new dict'),
        pytest.param(lambda new: new['model'].update(none=dict(type='E')), id='a dict for None'),
        pytest.param(lambda new: new['model'].update(parts=dict(type='E')), id='a dict for a list'),
        pytest.param(lambda new: new['model'].update(part=[dict(type='E'), dict(type='F')]), id='a list for a dict'),
        pytest.param(lambda new: new['model'].update(part=None), id='None for a dict'),
        pytest.param(lambda new: new['model']['parts'][0].update(x=2), id='inside a list'),
        pytest.param(lambda new: new.update(keys={'a.b': dict(x=1), 3: (1,)}), id='keys that are no names'),
        pytest.param(lambda new: new.update(long=[dict(type='A' * 30, x=i, y=(1, 2.5)) for i in range(9)]), id='long'),
        pytest.param(lambda new: new.update(lr=1), id='a number of another type'),
    ],
)
def test_a_child_reads_as_it_was_meant(tmp_path, change):
    from copy import deepcopy

    new = deepcopy(BASE)
    change(new)
    (tmp_path / 'base.py').write_text('\n'.join(f'{key} = {value!r}' for key, value in BASE.items()))
    text = config_text('base.py', difference(BASE, new), 'A test.')
    (tmp_path / 'child.py').write_text(text)
    child = Config.fromfile(tmp_path / 'child.py')
    assert child._cfg_dict.to_dict() == new
    assert '_delete_' not in str(child)
    assert max(map(len, text.splitlines())) <= 120


def test_only_what_differs_is_said():
    new = dict(model=dict(BASE['model'], none=1), lr=0.1)
    assert difference(BASE, new) == dict(model=dict(none=1))


def test_the_default_scope_is_left_out():
    part = dict(type='A', _scope_='mmseg', parts=[dict(_scope_='mmdet', x=1), dict(_scope_='mmseg')])
    assert without_scope(part, 'mmseg') == dict(type='A', parts=[dict(_scope_='mmdet', x=1), {}])
