"""What the tables consist of: a row is a way to pretrain and how its backbone is then trained on labels.

The paper's figures (MAP, CVPR 2025, arXiv 2410.00871) are top-1 accuracies on ImageNet-1K at 224 px, in percent, and
second-hand.
"""

from dataclasses import dataclass, field

#: What can be measured after the pretraining.
EVALUATIONS = ('finetune', 'linear', 'knn')

#: What the tracks of the tables train on.
TRACKS = {
    'mini': 'a backbone of 8 blocks and width 128 on images of CIFAR-10 size (32 px, patches of 4)',
    'small': 'a backbone of 12 blocks and width 192 on images of Tiny-ImageNet size (64 px, patches of 8)',
    'full': 'the backbones of the paper on ImageNet-1K at 224 px',
}


@dataclass(frozen=True)
class Recipe:
    """How a row is trained on a track; paths are relative to the repository.

    Args:
        finetune (str): Config of the fine-tuning.
        linear (str): Config of the linear probe.
        pretrain (str, optional): Config of the pretraining; None trains from scratch.
        extra_epochs (str, optional): Config whose epochs are added to those of the fine-tuning: a row without
            pretraining then sees as many images as one with it.
        options (dict): Settings of the pretraining config that this row changes.
    """

    finetune: str
    linear: str
    pretrain: str | None = None
    extra_epochs: str | None = None
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        name (str): What the command line and the folders call it; tables share rows, and their runs, by this name.
        label (str): What reports call it.
        recipes (dict[str, Recipe]): The recipe on each track that has the row.
        paper (float, optional): The paper's figure.
        note (str): What one must know of that figure.
    """

    name: str
    label: str
    recipes: dict[str, Recipe]
    paper: float | None = None
    note: str = ''


_FULL_FINETUNE = 'configs/map/benchmarks/map_hybrid-{}-p16_8xb128-amp-coslr-{}e_in1k.py'
_FULL_LINEAR = 'configs/map/benchmarks/map_hybrid-{}-p16_8xb2048-amp-linear-coslr-90e_in1k.py'
_FULL_END = 'p16_8xb256-amp-coslr-1600e_in1k.py'
_MINI_END = 'hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'
_SMALL_END = 'hybrid-4m-p8_1xb512-amp-coslr-100e_tiny-imagenet-64px.py'
_SMALL_METHODS = ('ar', 'mae', 'simmim')
_FULL_MAP = f'configs/map/map_hybrid-base-{_FULL_END}'
_MINI_MAP = f'configs/map/mini/map_{_MINI_END}'
_SMALL_MAP = f'configs/map/small/map_{_SMALL_END}'


def _full(pretrain: str | None, size: str = 'base', **options) -> Recipe:
    epochs = 50 if size in ('large', 'huge') else 100
    return Recipe(_FULL_FINETUNE.format(size, epochs), _FULL_LINEAR.format(size), pretrain, **options)


def _mini(pretrain: str | None, **options) -> Recipe:
    return Recipe(
        'configs/map/mini/finetune_hybrid-mini-p4_1xb256-coslr-50e_cifar10-32px.py',
        'configs/map/mini/linear_hybrid-mini-p4_1xb256-coslr-20e_cifar10-32px.py',
        pretrain,
        **options,
    )


def _small(pretrain: str | None, **options) -> Recipe:
    return Recipe(
        'configs/map/small/finetune_hybrid-4m-p8_1xb512-amp-coslr-30e_tiny-imagenet-64px.py',
        'configs/map/small/linear_hybrid-4m-p8_1xb512-amp-coslr-20e_tiny-imagenet-64px.py',
        pretrain,
        **options,
    )


def _method(name: str, label: str, paper: float | None = None, full_end: str = _FULL_END) -> Row:
    full, mini = f'configs/baselines/{name}_hybrid-base-{full_end}', f'configs/map/mini/{name}_{_MINI_END}'
    recipes = {'full': _full(full), 'mini': _mini(mini)}
    if name in _SMALL_METHODS:
        recipes['small'] = _small(f'configs/map/small/{name}_{_SMALL_END}')
    return Row(name, label, recipes, paper)


def _ablation(name: str, label: str, paper: float | None = None, note: str = '') -> Row:
    full = f'configs/map/ablations/map-{name}_hybrid-base-{_FULL_END}'
    return Row(
        name, label, {'full': _full(full), 'mini': _mini(f'configs/map/mini/map-{name}_{_MINI_END}')}, paper, note
    )


def _size(name: str, full: str, width: int | None, paper: float | None = None, note: str = '') -> Row:
    """A size of the paper; the mini track has three of the five, as widths of its backbone."""
    recipes = {'full': _full(f'configs/map/map_hybrid-{name}-{full}', name)}
    if width is not None:
        arch = {'model.backbone.arch.embed_dim': width}
        recipes['mini'] = _mini(_MINI_MAP, options=arch)
    return Row(f'size-{name}', f'MAP, {name}', recipes, paper, note)


_MAP = Row('map', 'MAP', {'full': _full(_FULL_MAP), 'mini': _mini(_MINI_MAP), 'small': _small(_SMALL_MAP)}, 84.9)
_RELEASED_DRAW = Row(
    'map-releaseddraw',
    "MAP, the released code's draw of the ratio",
    {'small': _small(f'configs/map/small/map-releaseddraw_{_SMALL_END}')},
)
# The full track has its own supervised recipe. The others compare equal numbers of labelled images; the long row
# compares equal numbers of all images.
_SUPERVISED = Recipe(
    'configs/baselines/supervised_hybrid-base-p16_8xb128-amp-coslr-300e_in1k.py', _FULL_LINEAR.format('base')
)
_SCRATCH = Row('scratch', 'from scratch', {'full': _SUPERVISED, 'mini': _mini(None), 'small': _small(None)}, 83.1)
_SCRATCH_LONG = Row(
    'scratch-long',
    'from scratch, all epochs',
    {'mini': _mini(None, extra_epochs=_MINI_MAP), 'small': _small(None, extra_epochs=_SMALL_MAP)},
)

TABLES = {
    'pretraining': [
        _SCRATCH,
        _SCRATCH_LONG,
        _method('mocov3', 'contrastive (MoCo v3)', 83.1, 'p16_16xb256-amp-coslr-300e_in1k.py'),
        _method('ar', 'AR', 83.8),
        _method('ar-row', 'AR, row by row'),
        _method('ar-token', 'AR, patch by patch'),
        _method('mae', 'MAE', 83.9),
        _method('simmim', 'SimMIM'),
        _MAP,
        _RELEASED_DRAW,
    ],
    'masking': [
        _ablation('ratio0', 'MAP, 0 % masked', 83.3),
        _ablation('ratio25', 'MAP, 25 % masked', 84.5),
        _MAP,
        _ablation('ratio75', 'MAP, 75 % masked', 84.2),
        _ablation('sequential', 'MAP, sequential masking', 84.0),
        _ablation('diagonal', 'MAP, diagonal masking', 83.8),
    ],
    'decoder': [
        _ablation('decoder-ar', 'AR decoder', 83.7),
        _ablation('decoder-mae', 'MAE decoder', 84.1),
        _ablation('decoder-local', 'local MAE decoder', 84.2),
        _MAP,
        _ablation('unaligned', 'MAP, predicted across the scan'),
        _ablation('raw-pixels', 'MAP, raw pixels as target'),
    ],
    'layout': [
        _MAP,
        _ablation('layout-M', 'MAP, all Mamba', 84.0, "Mamba-R's backbone"),
        _ablation('layout-T', 'MAP, all Transformer', 83.6, "ViT's backbone"),
        _ablation('layout-MTMM', 'MAP, MTMM...'),
        _ablation('layout-TMMM', 'MAP, TMMM...'),
        _ablation('layout-MMMMMMTT', 'MAP, M...MT...T'),
        _ablation('layout-TTMMMMMM', 'MAP, T...TM...M'),
    ],
    'sizes': [
        _size('tiny', _FULL_END, 64),
        _size('small', _FULL_END, 96),
        _size('base', _FULL_END, 128, 84.9, '85.5 at 384 px'),
        _size('large', 'p16_16xb128-amp-coslr-1600e_in1k.py', None, note='86.2 at 384 px'),
        _size('huge', 'p16_16xb128-amp-coslr-1600e_in1k.py', None),
    ],
}
