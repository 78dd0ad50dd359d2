import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_import_has_no_side_effects(tmp_path):
    # Packages of these names that can be imported, whether or not the real ones are installed.
    for name in ('mmseg', 'mmdet', 'mamba_ssm'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text(f'raise RuntimeError("{name} was imported")')
    script = f"""
        import logging, random, sys
        sys.path.insert(0, {str(tmp_path)!r})
        import mmengine.runner, numpy, torch  # mmengine's own import draws from random
        import torch.utils.flop_counter  # imports triton where it is installed
        triton_of_torch = 'triton' in sys.modules
        before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        handlers, level = list(logging.root.handlers), logging.root.level
        import mmmap
        from mmengine.logging import MMLogger
        from mmengine.registry import HOOKS, MODELS, TRANSFORMS
        assert not {{'mmseg', 'mmdet', 'mamba_ssm'}} & sys.modules.keys(), 'imported a heavy package'
        assert ('triton' in sys.modules) == triton_of_torch, 'imported triton'
        after = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        assert before == after, 'random state'
        assert (logging.root.handlers, logging.root.level) == (handlers, level), 'root logger'
        assert not MMLogger._instance_dict, 'mmengine logger'
        assert 'MAPHybrid' in MODELS and 'AtomicCheckpointHook' in HOOKS and 'LoadImageChecked' in TRANSFORMS
    """
    result = subprocess.run([sys.executable, '-c', textwrap.dedent(script)], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def import_in_order(script, tmp_path):
    (tmp_path / 'child.py').write_text("_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'\n")
    return subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, cwd=tmp_path)


@pytest.mark.parametrize(
    'first',
    [
        pytest.param('from mmseg.apis import MMSegInferencer', marks=pytest.mark.slow),
        'import mmmap',
        pytest.param('import mmengine.config', marks=pytest.mark.slow),
    ],
)
def test_mmmap_before_the_config_is_enough(tmp_path, first):
    """Whatever was imported before: a config of mmsegmentation as a base is found once mmmap is imported."""
    for name in ('mmcv._ext', 'mmseg', 'mmdet'):
        pytest.importorskip(name)
    script = f"""{first}
import mmmap
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS
from mmdet.apis import DetInferencer
from mmseg.apis import MMSegInferencer
assert Config.fromfile('child.py').model.type == 'EncoderDecoder'
assert MODELS.get('MAPHybrid') and HOOKS.get('mmmap.DenseCheckHook')
"""
    result = import_in_order(script, tmp_path)
    if first.startswith('from mmseg') and 'operator torchvision::nms does not exist' in result.stderr:
        pytest.skip('torchvision is of another torch: only `import mmmap` first mends that')
    assert result.returncode == 0, result.stderr


def test_hook_by_its_scope_imports_mmmap(tmp_path):
    """One line in the config of another package is enough, without `custom_imports`."""
    script = "from mmengine.registry import HOOKS; HOOKS.build(dict(type='mmmap.DenseCheckHook'))"
    result = import_in_order(script, tmp_path)
    assert result.returncode == 0, result.stderr
