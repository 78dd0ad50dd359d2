from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from mmmap.engine.type_hints import arguments_of, wrong_arguments


class Base:
    def __init__(self, interval: int = -1, names: Sequence[str] = (), scale: 'float' = 1.0):
        pass


class Child(Base):
    def __init__(self, size: int | tuple[int, int], model: torch.nn.Module | None = None, **kwargs: Any):
        super().__init__(**kwargs)


class Closed(Base):
    def __init__(self, mode: Literal['a', 'b'] = 'a', call: Callable | dict | None = None, other=None):
        super().__init__()


def _wrong(kind, sure=False, **part):
    return dict(wrong_arguments(dict(type='X', **part), kind, sure))


def test_arguments_of_base_classes_count_where_they_go_there():
    assert set(arguments_of(Child)) == {'size', 'model', 'interval', 'names', 'scale'}
    assert set(arguments_of(Closed)) == {'mode', 'call', 'other'}


@pytest.mark.parametrize(
    'part',
    [
        dict(size=3, interval=2, names=['a'], scale=1),
        dict(size=[3, 4], model=dict(type='Linear'), names=('a', 'b')),
        dict(size=(3, 4), model=None, names=[Path('x')], scale=1e-3),
        # Not known, a matter of the class.
        dict(unknown='x'),
    ],
)
def test_what_fits(part):
    assert _wrong(Child, **part) == {}
    assert _wrong(Closed, mode='b', call=dict(type='x'), other=object()) == {}


@pytest.mark.parametrize(
    ('part', 'expected'),
    [
        (dict(interval='x'), 'expected int'),
        (dict(interval=None), 'expected int'),
        (dict(interval=1.5), 'expected int'),
        (dict(scale=float('inf')), 'expected float'),
        (dict(scale=float('nan')), 'expected float'),
        (dict(scale='x'), 'expected float'),
        (dict(names='x'), 'Sequence'),
        (dict(names=[1]), 'Sequence'),
        (dict(size=[1, 2, 3]), 'tuple'),
        (dict(size={}), 'tuple'),
        (dict(model=3), 'Module'),
        (dict(model='x'), 'Module'),
    ],
)
def test_what_does_not_fit(part, expected):
    (name, wrong), *others = _wrong(Child, **part).items()
    assert not others and name in part and expected in wrong and repr(part[name]) in wrong
    assert _wrong(Closed, mode='c').keys() == {'mode'} and _wrong(Closed, call=3).keys() == {'call'}


def test_of_other_packages_only_what_is_no_number_is_sure_to_be_wrong():
    assert _wrong(Child, sure=True, interval='x').keys() == {'interval'}
    assert _wrong(Child, sure=True, interval={}, scale=None).keys() == {'interval', 'scale'}
    # Hints are often not exact: a size may be a pair, a number of epochs a float.
    assert _wrong(Child, sure=True, interval=(1, 2), scale=True, names='x', size='x') == {}
