import numpy as np
import pytest

from mmmap.utils.class_names import class_positions, names_of
from mmmap.utils.errors import UserError

ANIMALS = ('ant', 'bee', 'cat')


@pytest.mark.parametrize('kind', [tuple, list, np.array])
def test_names_are_a_tuple_of_any_list(kind):
    assert names_of(kind(ANIMALS), 'data') == ANIMALS
    assert all(type(name) is str for name in names_of(kind(ANIMALS), 'data'))


def test_no_list_and_an_empty_one_are_no_names():
    assert names_of(None, 'data') is None and names_of((), 'data') is None


@pytest.mark.parametrize('classes', ['no_such_file.txt', {'ant', 'bee'}, dict(ant=0), np.array('ant'), 3])
def test_what_is_no_list_is_named(classes):
    with pytest.raises(UserError, match=r'^val: classes=.*expected a list of names, or a file'):
        names_of(classes, 'val')


@pytest.mark.parametrize(
    ('names', 'positions'),
    [
        (ANIMALS, None),
        (list(ANIMALS), None),
        (('bee', 'cat'), [1, 2]),
        (('cat', 'ant', 'bee'), [2, 0, 1]),
        (('cat', 'ant'), [2, 0]),
    ],
)
def test_positions_are_found_by_name(names, positions):
    assert class_positions(names, ANIMALS, 'val', 'train') == positions


def test_the_same_list_is_equal_even_with_a_name_twice():
    # So is ImageNet's.
    assert class_positions(('crane', 'ant', 'crane'), ['crane', 'ant', 'crane'], 'val', 'train') is None


@pytest.mark.parametrize(
    ('names', 'known', 'message'),
    [
        (('ant', 'dog'), ANIMALS, r"^val \(2 classes\) .* train \(3\): 'dog' unknown .* 'bee', 'cat' in turn"),
        (('ant', 'bee', 'cat', 'dog'), ANIMALS, r"'dog' unknown to the latter\. "),
        (('Ant', 'bee', 'cat'), ANIMALS, r"'Ant' and 'ant' are two names"),
        (('bee ', 'ant', 'cat'), ANIMALS, r"'bee ' and 'bee' are two names"),
        (('hot-dog',), ('hot_dog',), r"'hot-dog' and 'hot_dog' are two names"),
        (tuple('vwxyz'), ANIMALS, r"'v', 'w', 'x' and 2 more unknown"),
        (('ant', 'ant', 'bee'), ANIMALS, r"^val names 'ant' twice"),
        (('bee', 'ant'), ('ant', 'bee', 'bee'), r"^train names 'bee' twice"),
    ],
)
def test_what_differs_is_named_in_one_line(names, known, message):
    with pytest.raises(UserError, match=message) as error:
        class_positions(names, known, 'val', 'train')
    assert '\n' not in str(error.value)


def test_thousands_of_names_take_no_time():
    names = [str(i) for i in range(100_000)]
    assert class_positions(names[::-1], names, 'val', 'train')[0] == 99_999
