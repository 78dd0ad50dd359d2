"""Tools import mmmap before mmpretrain, whose models may not load without it beside a torchvision without operators."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORTING = [path for path in sorted((ROOT / 'tools').rglob('*.py')) if 'mmpretrain' in path.read_text()]


@pytest.mark.parametrize('path', IMPORTING, ids=lambda path: path.stem)
def test_mmmap_comes_first(path):
    names = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name.split('.')[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module != 'mmpretrain.registry':
            names.append(node.module.split('.')[0])
    packages = [name for name in names if name in ('mmmap', 'mmpretrain')]
    assert packages[:1] != ['mmpretrain']
