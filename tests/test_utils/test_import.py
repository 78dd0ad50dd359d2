import subprocess
import sys
import textwrap
from pathlib import Path

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
