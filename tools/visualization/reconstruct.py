"""Draw original, masked and rebuilt images or clouds of points of a pretrained model side by side.

Clouds are written as PLY files too, in a folder beside the picture and of its name.
"""

import argparse
from pathlib import Path

import torch
from mmengine.runner import set_random_seed
from PIL import Image

import mmmap  # noqa: F401  (registers everything)
from mmmap.apis import build_model, load_clouds, load_first, load_images, load_model, stored_model
from mmmap.engine.errors import UserError, one_line_errors
from mmmap.engine.launch import read_config
from mmmap.models import PointMAPHybrid
from mmmap.visualization import draw_reconstruction, save_point_reconstruction


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint of a MAP model')
    parser.add_argument(
        'files', nargs='*', help="images, or clouds as .npy, .npz or .ply files (default: of the config's training set)"
    )
    parser.add_argument('--config', help='config file (default: the one that a converted checkpoint stores)')
    parser.add_argument('--count', type=int, default=4, help='samples of the training set (default: %(default)s)')
    parser.add_argument('--points', type=int, default=1024, help='points to draw of a cloud (default: %(default)s)')
    parser.add_argument('--out', default='reconstruction.png', help='picture to write (default: %(default)s)')
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the masks and of the points (default: %(default)s)'
    )
    args = parser.parse_args()
    with one_line_errors():
        cfg = None if args.config is None else read_config(args.config)
        if cfg is None and not args.files:
            raise UserError('nothing to rebuild: give files, or with --config samples of its training set are taken')
        model = stored_model(args.checkpoint) if cfg is None else build_model(cfg)
        load_model(model, args.checkpoint)
        points = isinstance(model.backbone, PointMAPHybrid)
        set_random_seed(args.seed)
        if not args.files:
            inputs = load_first(cfg, model, args.count)
        elif points:
            inputs = load_clouds(model, args.files, args.points)
        else:
            inputs = load_images(model, args.files, model.backbone.img_size)
        with torch.no_grad():
            reconstruction = model.reconstruct(inputs)
        if points:
            names = [f'{i}_{Path(path).stem}' for i, path in enumerate(args.files)] or None
            picture = save_point_reconstruction(reconstruction, inputs, Path(args.out).with_suffix(''), names)
        else:
            picture = draw_reconstruction(reconstruction, inputs, model.data_preprocessor)
        Image.fromarray(picture).save(args.out)
        hidden = 'groups' if points else 'patches'
        kind = 'cloud' if points else 'image'
        print(f'loss {reconstruction.loss():.4f} on the hidden {hidden} of {len(inputs)} {kind}(s); wrote {args.out}')


if __name__ == '__main__':
    main()
