"""Draw effective receptive fields, attention maps and scan responses of a backbone.

    python tools/analysis_tools/response_maps.py CONFIG CHECKPOINT IMAGE ... --kind erf [--compare CHECKPOINT] ...
    python tools/analysis_tools/response_maps.py CONFIG CHECKPOINT IMAGE ... --kind attention|scan --blocks 3 15 31

erf: the gradient of the centre token's output with respect to the pixels, averaged over the images (Luo et al. 2016,
arXiv 1701.04128). attention: the attention weights of one token in Transformer blocks, averaged over the heads. scan:
the hidden attention of the selective scans of Mamba blocks (Ali et al. 2024, arXiv 2403.01590), averaged over the
channels; see mmmap.analysis.token_response. CONFIG is that of any model of images with a MAPHybrid: pretraining, a
classifier, a segmentor or a detector. Only the backbone of a checkpoint is loaded: a pretraining checkpoint fits the
config of a classifier with the same backbone.
"""

import argparse
from pathlib import Path

UNTRAINED = 'none'
LETTERS = {'attention': 'T', 'scan': 'M'}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of a model of images')
    parser.add_argument('checkpoint', help=f'its checkpoint, or {UNTRAINED!r} for initial weights')
    parser.add_argument('images', nargs='+', help='image files')
    parser.add_argument('--kind', choices=['erf', *LETTERS], default='erf', help='default: %(default)s')
    # One value per option, so that it can be given before the images.
    parser.add_argument(
        '--compare', action='append', default=[], metavar='CHECKPOINT', help='another checkpoint to draw; repeatable'
    )
    parser.add_argument('--blocks', nargs='+', type=int, help='blocks to draw, 0 first (default: up to four)')
    parser.add_argument(
        '--token', nargs=2, type=int, metavar=('ROW', 'COLUMN'), help='token to draw (default: the centre)'
    )
    parser.add_argument('--size', nargs=2, type=int, metavar=('H', 'W'), help="pixels (default: the backbone's)")
    parser.add_argument('--seed', type=int, default=0, help='seed of initial weights (default: %(default)s)')
    parser.add_argument('--out', default='response_maps.png', help='picture to write (default: %(default)s)')
    args = parser.parse_args()
    if args.kind == 'erf' and args.blocks:
        parser.error('--blocks: --kind erf is of the whole backbone and takes no blocks')
    return args


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import torch
from mmengine.config import Config
from torch import nn

import mmmap  # noqa: F401  (registers everything)
from mmmap.analysis import area_of_half, effective_receptive_field, token_responses
from mmmap.apis import build_model, load_images, parts_with_inputs
from mmmap.engine.checkpoint_files import check_checkpoint_file
from mmmap.engine.error_report import one_line_errors
from mmmap.engine.launch import read_config
from mmmap.models.backbones import MAPHybrid
from mmmap.utils.checkpoint_fit import shorten_keys
from mmmap.utils.errors import UserError
from mmmap.utils.safe_load import load_checkpoint
from mmmap.visualization import draw_receptive_fields, draw_token_responses, to_pixels

#: Prefixes of the weights of an image backbone. A checkpoint of joint pretraining has two backbones.
PREFIXES = ('image.backbone.', 'backbone.')


def load_backbone_model(cfg: Config, checkpoint: str, seed: int) -> nn.Module:
    """The model of a config in evaluation mode, with the backbone weights of a checkpoint.

    Args:
        cfg (Config): The config of a run.
        checkpoint (str): A checkpoint, or 'none' for initial weights.
        seed (int): Seed of the initial weights.

    Returns:
        nn.Module: The model; of joint pretraining, its image part.

    Raises:
        UserError: If the file is missing or has no backbone, or the model has another backbone than ``MAPHybrid``.
        RuntimeError: If the weights do not fit.
    """
    torch.manual_seed(seed)
    whole = build_model(cfg)
    model = next((part for part in parts_with_inputs(whole).values() if has_backbone(part)), None)
    if model is None:
        raise UserError(
            f'{cfg.filename}: {type(whole).__name__} has no MAPHybrid as its backbone: of other models, such as those '
            'of clouds, there are no response maps'
        )
    if checkpoint != UNTRAINED:
        check_checkpoint_file(checkpoint)
        content = load_checkpoint(checkpoint)
        weights = content.get('state_dict', content)
        prefix = next((prefix for prefix in PREFIXES if any(key.startswith(prefix) for key in weights)), None)
        if prefix is None:
            raise UserError(f"{checkpoint} has no weights of a backbone: no key of it begins with 'backbone.'")
        of_backbone = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        try:
            model.backbone.load_state_dict(of_backbone)
        except RuntimeError as error:
            raise RuntimeError(f'{checkpoint}: {shorten_keys(str(error))}') from error
    return model.eval()


def has_backbone(model: nn.Module) -> bool:
    """Whether a model has a ``MAPHybrid``, whose responses can be drawn."""
    return isinstance(getattr(model, 'backbone', None), MAPHybrid)


def choose_blocks(layout: str, kind: str, blocks: list[int] | None) -> list[int]:
    """The blocks to draw: the given ones, or up to four of the kind, evenly spread.

    Raises:
        UserError: If a block is of the other kind, or there is none of this kind.
    """
    known = [i for i, letter in enumerate(layout) if letter == LETTERS[kind]]
    if not known:
        raise UserError(f'--kind {kind}: layout {layout!r} has no {LETTERS[kind]} block')
    if blocks is None:
        return [known[i] for i in sorted({round(x) for x in torch.linspace(0, len(known) - 1, 4).tolist()})]
    for block in blocks:
        if block not in known:
            raise UserError(f'--blocks {block}: not among the {LETTERS[kind]} blocks {known} of --kind {kind}')
    return blocks


def main() -> None:
    """Run the tool."""
    args = parse_args()
    checkpoints = [args.checkpoint, *args.compare]
    names = ['untrained' if path == UNTRAINED else Path(path).stem for path in checkpoints]
    if len(set(names)) != len(names):  # Checkpoints of different runs can have one file name.
        names = ['untrained' if path == UNTRAINED else path for path in checkpoints]
    with one_line_errors():
        cfg = read_config(args.config)
        fields, rows = {}, []
        for name, checkpoint in zip(names, checkpoints, strict=True):
            model = load_backbone_model(cfg, checkpoint, args.seed)
            backbone = model.backbone
            size = tuple(args.size or backbone.img_size)
            grid = backbone.grid_of(*size)
            token = tuple(args.token or (n // 2 for n in grid))
            inputs = load_images(model, args.images, size)
            if args.kind == 'erf':
                field = effective_receptive_field(backbone, inputs, token)
                area = 100 * area_of_half(field)
                print(f'{name}: half of the gradient lies in {area:.1f} % of the pixels')
                fields[f'{name}\nhalf of it in {area:.1f} % of the pixels'] = field
            else:
                blocks = choose_blocks(backbone.encoder.layout, args.kind, args.blocks)
                responses = token_responses(backbone, inputs, token, blocks)
                for i, path in enumerate(args.images):
                    maps = {f'{args.kind}, block {block}': response[i] for block, response in responses.items()}
                    rows.append((i, f'{Path(path).stem}, {name}', maps))
        if args.kind == 'erf':
            draw_receptive_fields(fields, args.out)
        else:
            rows.sort(key=lambda row: row[0])  # All checkpoints of one image below each other
            pixels = to_pixels(inputs, model.data_preprocessor).round().clamp(0, 255).byte()
            draw_token_responses(pixels.permute(0, 2, 3, 1).numpy(), rows, token, args.out)
        print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
