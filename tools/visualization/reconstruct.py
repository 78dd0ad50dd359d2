"""Draw original, masked and rebuilt images of a pretrained model side by side."""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.runner import load_checkpoint
from PIL import Image

import mmmap  # noqa: F401  (registers everything)
from mmmap.engine.checkpoint import check_checkpoint_file
from mmmap.engine.errors import UserError, one_line_errors
from mmmap.registry import MODELS
from mmmap.utils.compat import load_local_checkpoint
from mmmap.visualization import draw_reconstruction


def load_model(config: str | None, checkpoint: str) -> torch.nn.Module:
    """Build the model of a config, or of the checkpoint itself, and load its weights.

    Args:
        config (str, optional): A config file; None takes the model config that a converted checkpoint stores.
        checkpoint (str): The checkpoint.

    Returns:
        torch.nn.Module: A ``MAP`` in evaluation mode.

    Raises:
        UserError: If a file is missing, or there is neither a config nor a stored one.
    """
    check_checkpoint_file(checkpoint)
    if config is not None:
        if not Path(config).is_file():
            raise UserError(f'config file not found: {config}')
        cfg = Config.fromfile(config)
        model_cfg = cfg.model
        # A Runner gives the model the config's preprocessor unless it has one of its own.
        if 'data_preprocessor' not in model_cfg and 'data_preprocessor' in cfg:
            model_cfg.data_preprocessor = cfg.data_preprocessor
    else:
        meta = load_local_checkpoint(checkpoint, 'cpu').get('meta', {})
        if 'model_cfg' not in meta:
            raise UserError(f'{checkpoint} stores no model config: give one with --config')
        model_cfg = meta['model_cfg']
    model = MODELS.build(model_cfg)
    load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    return model.eval()


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint of a MAP model')
    parser.add_argument('images', nargs='+', help='image files')
    parser.add_argument('--config', help='config file (default: the one that a converted checkpoint stores)')
    parser.add_argument('--out', default='reconstruction.png', help='picture to write (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the masks (default: %(default)s)')
    args = parser.parse_args()
    with one_line_errors():
        model = load_model(args.config, args.checkpoint)
        height, width = model.backbone.img_size
        pipeline = Compose(
            [
                dict(type='LoadImageChecked', on_error='raise'),
                dict(type='mmpretrain.ResizeEdge', scale=max(height, width), edge='short', backend='pillow'),
                dict(type='mmpretrain.CenterCrop', crop_size=(width, height)),
                dict(type='mmpretrain.PackInputs'),
            ]
        )
        batch = default_collate([pipeline(dict(img_path=path)) for path in args.images])
        torch.manual_seed(args.seed)
        with torch.no_grad():
            inputs = model.data_preprocessor(batch)['inputs']
            reconstruction = model.reconstruct(inputs)
        picture = draw_reconstruction(reconstruction, inputs, model.data_preprocessor)
        Image.fromarray(picture).save(args.out)
        print(
            f'loss {reconstruction.loss():.4f} on the hidden patches of {len(args.images)} image(s); wrote {args.out}'
        )


if __name__ == '__main__':
    main()
