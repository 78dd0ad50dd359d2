"""Draw original, masked and reconstructed images or point clouds of a pretrained model side by side.

Point clouds are also written as PLY files, in a folder with the name of the picture. A joint model takes images, point
clouds or both; for both, two pictures are written, NAME_image.png and NAME_points.png.
"""

import argparse
from collections import defaultdict
from copy import deepcopy
from pathlib import Path

#: Points of a cloud if neither the command nor the config tells.
POINTS = 1024


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint of a pretraining model: MAP, MAE, AR, SimMIM or JointMAP')
    parser.add_argument(
        'files',
        nargs='*',
        help='images, or clouds: .npy, .npz, .ply, .las, .laz, .pcd, .off, text (default: the training set)',
    )
    parser.add_argument('--config', help='config file (default: the config in a converted checkpoint)')
    parser.add_argument('--count', type=int, default=4, help='samples of the training set (default: %(default)s)')
    parser.add_argument(
        '--points',
        type=int,
        help=f'points to sample from the cloud of a file (default: those of the config, or {POINTS})',
    )
    parser.add_argument('--out', default='reconstruction.png', help='picture to write (default: %(default)s)')
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the masks and of the points (default: %(default)s)'
    )
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import torch
from mmengine.config import Config
from mmengine.runner import set_random_seed
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

import mmmap  # noqa: F401  (registers everything)
from mmmap.apis import (
    build_model,
    build_stored_model,
    load_clouds,
    load_images,
    load_training_samples,
    load_weights,
    parts_with_inputs,
    points_per_cloud,
    takes_clouds,
)
from mmmap.engine.error_report import one_line_errors
from mmmap.engine.launch import read_config
from mmmap.models.selfsup.joint_map import modality_of
from mmmap.models.selfsup.token_pretraining import TokenPretraining
from mmmap.utils.errors import UserError
from mmmap.visualization import draw_reconstruction, save_point_reconstruction


def is_image(path: str) -> bool:
    """Whether a file starts like an image."""
    try:
        with Image.open(path):
            return True
    except FileNotFoundError:
        raise UserError(f'{path} is missing') from None
    except (UnidentifiedImageError, OSError):
        return False


def load_files(model: nn.Module, files: list[str], points: int) -> dict[str, tuple[list[str], Tensor]]:
    """The files and their inputs for each part of a model, see ``parts_with_inputs``."""
    parts, of_part = parts_with_inputs(model), defaultdict(list)
    for path in files:
        name = next(iter(parts)) if len(parts) == 1 else 'image' if is_image(path) else 'points'
        of_part[name].append(path)
    loaded = {}
    for name, paths in of_part.items():
        part = parts[name]
        if takes_clouds(part):
            loaded[name] = paths, load_clouds(part, paths, points)
        else:
            loaded[name] = paths, load_images(part, paths, part.backbone.img_size)
    return loaded


def load_samples(cfg: Config, model: nn.Module, count: int) -> dict[str, tuple[list[str], Tensor]]:
    """No files, and the first inputs of the training set, for each part of a model."""
    parts = parts_with_inputs(model)
    datasets = (cfg.get('train_dataloader') or {}).get('dataset', {}).get('datasets')
    if len(parts) == 1 or not datasets:
        return {next(iter(parts)): ([], load_training_samples(cfg, model, count))}
    loaded, own = {}, deepcopy(cfg)
    for dataset in datasets:
        own.train_dataloader.dataset = dataset
        inputs = load_training_samples(own, model, count)
        loaded.setdefault(modality_of(inputs), ([], inputs))
    return loaded


def draw(model: nn.Module, inputs: Tensor, out: Path, files: list[str]) -> None:
    """Reconstruct a batch, write its picture, and print the loss."""
    with torch.no_grad():
        reconstruction = model.reconstruct(inputs)
    if takes_clouds(model):
        hidden, kind = 'groups', 'cloud'
        names = [f'{i}_{Path(path).stem}' for i, path in enumerate(files)] or None
        picture = save_point_reconstruction(reconstruction, inputs, out.with_suffix(''), names)
    else:
        hidden, kind = 'patches', 'image'
        picture = draw_reconstruction(reconstruction, inputs, model.data_preprocessor)
    Image.fromarray(picture).save(out)
    print(f'loss {reconstruction.loss():.4f} on the hidden {hidden} of {len(inputs)} {kind}(s); wrote {out}')


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        cfg = None if args.config is None else read_config(args.config)
        if cfg is None and not args.files:
            raise UserError('nothing to rebuild: give files, or with --config samples of its training set are taken')
        model = build_stored_model(args.checkpoint) if cfg is None else build_model(cfg)
        parts = parts_with_inputs(model)
        if not all(isinstance(part, TokenPretraining) for part in parts.values()):
            raise UserError(
                f'{args.config or args.checkpoint}: {type(model).__name__} rebuilds nothing: give the config of the '
                'pretraining, by MAP, MAE, AR, SimMIM or JointMAP'
            )
        load_weights(model, args.checkpoint)
        set_random_seed(args.seed)
        if args.files:
            points = args.points or (cfg and points_per_cloud(cfg)) or POINTS
            loaded = load_files(model, args.files, points)
        else:
            loaded = load_samples(cfg, model, args.count)
        out = Path(args.out)
        for name, (files, inputs) in loaded.items():
            path = out if len(loaded) == 1 else out.with_name(f'{out.stem}_{name}{out.suffix}')
            draw(parts[name], inputs, path, files)


if __name__ == '__main__':
    main()
