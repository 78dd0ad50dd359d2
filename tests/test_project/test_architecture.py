"""The step that docs/en/architecture.md walks has the shapes that it names, and is the step that MAP takes."""

import ast
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs/en/architecture.md'


def shape_of(value):
    return tuple(value.shape) if isinstance(value, torch.Tensor) else value


@pytest.fixture(scope='module')
def walked():
    """The names that the code of the page leaves, and for each commented line its code, the comment and the shape."""
    code = '\n'.join(re.findall(r'^```python\n(.*?)^```$', PAGE.read_text(), re.M | re.S))
    lines, names, found = code.splitlines(), {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for statement in ast.parse(code).body:
            source = ast.get_source_segment(code, statement)
            if isinstance(statement, ast.Expr):
                value = eval(source, names)
            else:
                exec(source, names)
                value = eval(ast.unparse(statement.targets[0]), names) if isinstance(statement, ast.Assign) else None
            _, comment, named = lines[statement.end_lineno - 1].partition('  # ')
            if comment:
                shape = tuple(map(shape_of, value)) if isinstance(value, tuple) else shape_of(value)
                found.append((source, ast.literal_eval(named), shape))
    return names, found


def test_every_shape_on_the_page_is_so(walked):
    assert len(walked[1]) > 20
    wrong = [(source, named, shape) for source, named, shape in walked[1] if named != shape]
    assert not wrong


def test_the_lines_are_those_that_map_runs(walked):
    names = walked[0]
    result = names['model'].reconstruct(names['images'])
    for name in ('latent', 'predicted', 'mask'):
        assert shape_of(getattr(result, name)) == shape_of(names[name])


def test_the_shapes_in_the_picture_are_on_the_page(walked):
    picture = (PAGE.parent / re.search(r'^!\[.*\]\((.*)\)$', PAGE.read_text(), re.M)[1]).read_text()
    shapes = {ast.literal_eval(shape) for shape in re.findall(r'\(256, [\d, ]+\)', picture)}
    assert len(shapes) == 4
    assert shapes <= {shape_of(walked[0]['images'])} | {shape for _, _, shape in walked[1]}


def test_named_classes_are_in_the_named_files():
    rows = re.findall(r'^\| [^|]+ \| ([^|]+) \| ([^|]+) \|$', PAGE.read_text(), re.M)[1:]
    assert len(rows) == 12
    for classes, files in rows:
        text = ''.join((ROOT / 'mmmap/models' / file).read_text() for file in re.findall(r'`(.+?)`', files))
        for name in re.findall(r'`(\w+)', classes):
            assert re.search(rf'^(class|def) {name}\b', text, re.M), name
