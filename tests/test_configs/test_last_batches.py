"""No config of the repository ends its epochs with one sample where that would stop it, on 1 to 8 processes."""

import math

import pytest
from config_cases import FILES, build_on_meta, read
from torch.nn.modules.batchnorm import _BatchNorm

from mmmap.engine.last_batch_check import last_batch_size

# Training samples of the data sets whose models have batch norm over vectors.
SAMPLES = {
    'ImageNet': 1_281_167,
    'CIFAR10': 50_000,
    'digits': 4_000,
    'tiny-imagenet-64px': 99_993,
    'ModelNet40': 9_843,
    'modelnet40-5way-10shot': 50,
    'scanobjectnn-pb-t50-rs': 11_416,
    'scanobjectnn-obj-bg': 2_309,
    'scanobjectnn-obj-only': 2_309,
    'shrec16': 480,
}
# Batch norm in these sees many points or pixels of a sample.
OVER_MAPS = ('tokenizer', 'head.convs', 'segmentor')
# The rest are named by their paths.
NAMES = ('neck', 'head', 'momentum_encoder')


def _samples(path, cfg):
    named = [count for name, count in SAMPLES.items() if path.stem.endswith(name) or f'_{name}-' in path.stem]
    kind = cfg.train_dataloader.dataset.type.split('.')[-1]
    return SAMPLES[kind] if kind in SAMPLES and not named else named[0]


def _cases():
    for path in FILES:
        try:
            cfg = read(path)
        # Its bases are of a package that is not installed.
        except ModuleNotFoundError:
            continue
        if cfg.get('train_dataloader') and cfg.default_scope == 'mmpretrain':
            yield path


CASES = [pytest.param(path, id=path.stem) for path in _cases()]


@pytest.mark.parametrize('path', CASES)
def test_no_last_batch_of_one(path):
    cfg = read(path)
    names = [name for name, module in build_on_meta(cfg).named_modules() if isinstance(module, _BatchNorm)]
    names = [name for name in names if not any(part in name for part in OVER_MAPS)]
    loader = cfg.train_dataloader
    if not names:
        return
    samples = _samples(path, cfg)
    for processes in range(1, 9):
        last = last_batch_size(math.ceil(samples / processes), loader.batch_size, loader.get('drop_last', False))
        assert last > 1, (processes, names)
