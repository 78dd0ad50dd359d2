"""Convert a checkpoint of the released MAP, Mamba-R or PointMAP code into one of mmmap.

A pretrained model becomes a ``MAP``, a classifier mmpretrain's ``ImageClassifier``, which returns the logits in
``mode='tensor'``. The architecture is inferred from the shapes and stored: ``MODELS.build(ckpt["meta"]["model_cfg"])``
builds the model into which ``ckpt['state_dict']`` is loaded strictly.
"""

import argparse
import copy
import os
import sys


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='checkpoint of the released code')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument('--ema', action='store_true', help='convert the moving average of the parameters')
    parser.add_argument(
        '--num-heads', type=int, help="heads of the encoder's Transformer blocks (default: as released)"
    )
    parser.add_argument('--decoder-num-heads', type=int, help='heads of the decoder (default: as released)')
    parser.add_argument(
        '--task',
        choices=('pretraining', 'classification'),
        help='model to convert if the checkpoint has both (default: pretraining)',
    )
    points = parser.add_argument_group('point clouds', 'what shapes do not tell; for PointMAP checkpoints only')
    points.add_argument('--num-groups', type=int, help='the released num_group (default: 64)')
    points.add_argument('--group-size', type=int, help='points of a group, for a classifier (default: 32)')
    points.add_argument('--local-neighbours', type=int, help='the released center_local_k (default: 4)')
    points.add_argument('--bimamba-type', choices=('v4', 'v2'), help='of the released config (default: v4)')
    points.add_argument('--loss', choices=('cdl2', 'cdl1'), help='of the released config (default: cdl2)')
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import torch
from torch import Tensor

from mmmap import __version__
from mmmap.engine.error_report import one_line_errors
from mmmap.registry import MODELS
from mmmap.released.image_checkpoint import infer_model_cfg
from mmmap.released.image_keys import TASKS, convert_state_dict, find_task
from mmmap.released.point_checkpoint import infer_point_model_cfg
from mmmap.released.point_keys import convert_point_state_dict, find_point_task
from mmmap.utils.atomic_files import atomic_path
from mmmap.utils.errors import UserError
from mmmap.utils.safe_load import load


def load_released(path: str, ema: bool = False) -> dict[str, Tensor]:
    """Read the parameters of a released checkpoint without running anything that the file holds.

    Args:
        path (str): A file with a dict of ``model`` (``base_model`` from PointMAP), ``model_ema`` and more, or with a
            bare state dict.
        ema (bool): Take the moving average ``model_ema``. Defaults to False.

    Returns:
        dict[str, Tensor]: The parameters by their released names.

    Raises:
        ValueError: If the file cannot be read safely, or lacks the parameters.
    """
    try:
        checkpoint = load(path, map_location='cpu')
    except (UserError, OSError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f'{path}: holds a {type(checkpoint).__name__}, not a dict')
    if ema or 'model' in checkpoint or 'base_model' in checkpoint:
        key = 'model_ema' if ema else 'model' if 'model' in checkpoint else 'base_model'
        if not isinstance(checkpoint.get(key), dict):
            raise ValueError(f'{path}: has no dict {key!r}; it has {", ".join(map(str, list(checkpoint)[:12]))}')
        checkpoint = checkpoint[key]
    state_dict = {str(key).removeprefix('module.'): value for key, value in checkpoint.items()}
    others = [key for key, value in state_dict.items() if not isinstance(value, Tensor)]
    if others or not state_dict:
        raise ValueError(f'{path}: not a state dict; no tensors under {", ".join(others[:12]) or "any key"}')
    return state_dict


def convert(
    src: str,
    dst: str,
    ema: bool = False,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    task: str | None = None,
    **point_options: int | str,
) -> dict[str, str]:
    """Convert a checkpoint file, see the docstring of the module.

    Args:
        src (str): The released checkpoint.
        dst (str): Where to write ours; it is written whole or not at all.
        ema (bool): Take the moving average of the parameters. Defaults to False.
        num_heads (int, optional): Heads of the encoder's Transformer blocks. Defaults to the released number.
        decoder_num_heads (int, optional): Heads of the decoder, which a classifier has not. Defaults to the released
            number.
        task (str, optional): 'pretraining' or 'classification', for a checkpoint that holds both. Defaults to
            pretraining if there is a decoder, else classification.
        point_options (int | str): For a model of point clouds what shapes do not tell, see
            :func:`mmmap.released.point_checkpoint.infer_point_model_cfg`.

    Returns:
        dict[str, str]: Our name for each released name.

    Raises:
        ValueError: If the file has no model of the task, or its parameters do not match ours one to one.
    """
    released = load_released(src, ema)
    try:
        if found := find_point_task(released):
            if task not in (None, found):
                raise ValueError(f'task={task!r}: a PointMAP checkpoint of {found} holds no other')
            task = found
            model_cfg = infer_point_model_cfg(released, num_heads, decoder_num_heads, **point_options)
            state_dict, names, left_out = convert_point_state_dict(released)
        else:
            if point_options:
                raise ValueError(f'{", ".join(point_options)}: only of use to a PointMAP checkpoint')
            task = find_task(released, task)
            model_cfg = infer_model_cfg(released, num_heads, decoder_num_heads, task)
            state_dict, names, left_out = convert_state_dict(released, task)
        with torch.device('meta'):  # Only names and shapes are needed.
            model = MODELS.build(copy.deepcopy(model_cfg))  # A classifier writes into its config.
        _check_same(model.state_dict(), state_dict)
    except ValueError as e:
        raise ValueError(f'{src}: {e}') from None
    meta = dict(model_cfg=model_cfg, mmmap_version=__version__, converted_from=os.path.basename(src), ema=ema)
    with atomic_path(dst) as part:
        torch.save(dict(meta=meta, state_dict=state_dict), part)
    for old, new in names.items():
        print(f'{old} -> {new} {tuple(released[old].shape)}')
    (other,) = set(TASKS) - {task}
    for old in left_out:
        print(f'{old}: left out, of use to {other} only')
    arch = model_cfg['backbone']['arch']
    print(f'{len(names)} tensors mapped, {len(left_out)} left out; {task}, arch {arch}; wrote {dst}')
    return names


def _check_same(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    missing = [key for key in wanted if key not in given]
    extra = [key for key in given if key not in wanted]
    shapes = [
        f'{key} {tuple(given[key].shape)} instead of {tuple(wanted[key].shape)}'
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    problems = [('missing', missing), ('unexpected', extra), ('of another shape', shapes)]
    text = '; '.join(f'{len(keys)} {what}: {", ".join(keys[:8])}' for what, keys in problems if keys)
    if text:
        raise ValueError(f'does not make a whole model: {text}')


def main() -> int:
    """Run the command line; returns the exit status."""
    args = parse_args()
    options = {key: value for key, value in vars(args).items() if value is not None}
    try:
        convert(**options)
    except (ValueError, OSError) as e:
        print(f'error: {e}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    with one_line_errors():
        sys.exit(main())
