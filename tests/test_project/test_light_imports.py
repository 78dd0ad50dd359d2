"""What needs neither mmengine nor what stands on it must not import it."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# torchrun.py passes all of its arguments on to torch's launcher; worker.py is started by a benchmark.
TOOLS = [path for path in sorted((ROOT / 'tools').rglob('*.py')) if '.parse_args()' in path.read_text(encoding='utf-8')]
BLOCK = """
    import sys
    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.split('.')[0] in {blocked!r}:
                raise ImportError(name + ' was imported')
    sys.meta_path.insert(0, Block())
"""
OPENMMLAB = ('mmengine', 'mmcv', 'mmpretrain', 'cv2', 'matplotlib', 'rich', 'packaging')


def run(script, blocked=()):
    code = textwrap.dedent(BLOCK).format(blocked=blocked) + textwrap.dedent(script)
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.stem)
def test_help_needs_python_alone(tool):
    script = f"""
        import runpy
        sys.argv = [{str(tool)!r}, '--help']
        sys.path.insert(1, {str(tool.parent)!r})
        runpy.run_path(sys.argv[0], run_name='__main__')
    """
    result = run(script, ('torch', 'numpy', 'PIL', *OPENMMLAB))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('usage:')


def test_help_of_the_command_needs_python_alone():
    script = """
        from mmmap.commands import COMMANDS, main
        for name in COMMANDS:
            try:
                main([name, '--help'])
            except SystemExit as stop:
                assert stop.code == 0
    """
    result = run(script, ('torch', 'numpy', 'PIL', *OPENMMLAB))
    assert result.returncode == 0, result.stderr


def test_operators_need_torch_alone():
    script = """
        import pkgutil, torch
        import mmmap.ops
        u = torch.rand(1, 4, 8)
        mmmap.ops.selective_scan(u, u, -torch.rand(4, 2), torch.rand(1, 2, 8), torch.rand(1, 2, 8))
        mmmap.ops.farthest_point_sample(torch.rand(1, 9, 3), 4)
        for module in pkgutil.walk_packages(mmmap.ops.__path__, 'mmmap.ops.'):
            if 'triton' not in module.name and not module.name.endswith('._native'):
                __import__(module.name)
        try:
            import mmmap.models
        except ImportError as error:
            assert 'mmengine' in str(error), error
        else:
            raise AssertionError('mmmap.models was imported')
    """
    result = run(script, OPENMMLAB)
    assert result.returncode == 0, result.stderr


def test_operators_import_nothing_else_where_it_is_there():
    script = f'import mmmap.ops; assert not set({OPENMMLAB!r}) & sys.modules.keys()'
    assert run(script).returncode == 0


@pytest.mark.parametrize(
    'first',
    [
        'import mmmap',
        'from mmmap.models import MAPHybrid',
        'import mmmap.utils.safe_load',
        'import mmmap, mmpretrain',
        'import mmmap; from mmcv.transforms import BaseTransform',
        'import mmmap.ops; from mmpretrain.apis import get_model',
        'import mmpretrain, mmmap',
        "from mmengine.registry import Registry; Registry('x', scope='mmmap', locations=['mmmap.models']).get('MAP')",
    ],
)
def test_all_components_are_registered(first):
    script = f"""
        {first}
        from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
        for registry, name in ((MODELS, 'MAPHybrid'), (HOOKS, 'ResumeHook'), (DATASETS, 'ImageFolder'),
                               (METRICS, 'PartIoUMetric')):
            assert name in registry.module_dict, name
        import mmpretrain.models
        from mmengine.runner import checkpoint
        assert type(checkpoint.torch).__module__ == 'mmmap.utils.safe_mmengine'
        assert len([finder for finder in sys.meta_path if 'mmmap' in type(finder).__module__]) == 0
    """
    result = run(script)
    assert result.returncode == 0, result.stderr
