"""Which parts of mmmap may import which: there is one direction, from what stands above to what it stands on."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / 'mmmap'
ANYWHERE = {'version', 'registry', 'utils'}
# Part -> what it may import beside itself and ANYWHERE.
ALLOWED = {
    'version': set(),
    'registry': set(),
    # Loaded only where a setting of a config is given.
    'command_line': {'engine'},
    # Each of these loads what it runs when it is run.
    'commands': {'apis', 'engine'},
    '__main__': {'commands'},
    'utils': set(),
    'ops': set(),
    'structures': set(),
    'datasets': {'ops', 'structures'},
    'models': {'ops', 'structures'},
    'released': {'models', 'ops', 'structures'},
    'analysis': {'models', 'ops', 'structures'},
    'evaluation': {'ops', 'structures'},
    'visualization': {'models', 'structures'},
    'engine': {'command_line', 'datasets', 'evaluation', 'models', 'ops', 'structures', 'visualization'},
    'apis': {'datasets', 'engine', 'evaluation', 'models', 'structures'},
}
# These may not even import what all others may: `ops` needs torch alone, `command_line` Python alone.
ALONE = {'version', 'registry', 'command_line', 'ops'}
# Arrows that are yet to go.
KNOWN = set()


def imported(path, root=ROOT):
    """Modules of mmmap that a file imports, wherever in it, with their lines."""
    package = ('mmmap', *path.relative_to(root).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = '.'.join([*base, *filter(None, [node.module])])
            names = [f'{module}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith('mmmap.'):
                yield name.split('.')[1], node.lineno


def wrong_arrows(part, root=ROOT):
    allowed = {part, *ALLOWED[part], *(set() if part in ALONE else ANYWHERE)}
    files = [root / f'{part}.py'] if (root / f'{part}.py').is_file() else sorted((root / part).rglob('*.py'))
    return [
        f'{path.relative_to(root)}:{line} imports {target}'
        for path in files
        for target, line in imported(path, root)
        if target not in allowed and (part, target) not in KNOWN
    ]


@pytest.mark.parametrize('part', ALLOWED)
def test_arrows_point_down(part):
    assert wrong_arrows(part) == []


def test_every_part_has_its_arrows():
    parts = {path.stem for path in ROOT.iterdir() if path.suffix == '.py' or (path / '__init__.py').is_file()}
    assert parts - {'__init__'} - ALLOWED.keys() == set()


def test_the_core_does_not_name_the_released_wing():
    fields = ('id', 'attr', 'arg', 'name', 'module', 'value')
    for path in set(ROOT.rglob('*.py')) - set((ROOT / 'released').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            assert 'released' not in [getattr(node, field, None) for field in fields], (path, node.lineno)


@pytest.mark.parametrize(
    'line', ['from ..models import MAP', 'from .. import models', 'import mmmap.models', 'from mmmap import models']
)
def test_a_wrong_arrow_is_found(tmp_path, line):
    (tmp_path / 'structures').mkdir()
    (tmp_path / 'structures' / 'a.py').write_text(f'def f():\n    {line}\n')
    assert wrong_arrows('structures', tmp_path) == ['structures/a.py:2 imports models']
