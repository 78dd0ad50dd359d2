"""Write a child config in which a config of mmdet, mmseg or mmpretrain has a hybrid backbone.

Backbone, neck, widths, strides, padding, pixels and optimizer are set for the heads of the config. The new config is
built, trained for two iterations and run on generated pictures before it is written. What cannot have the backbone is
refused in one line.
"""

import argparse
import shlex
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``mmmap adapt``."""
    parser.add_argument(
        'config', help='an installed config, such as mmdet::retinanet/retinanet_r50_fpn_1x_coco.py, or a file'
    )
    parser.add_argument('--arch', help="a size of MAPHybrid: 'tiny', 'small', 'base', 'large' or 'huge'")
    parser.add_argument('--backbone', metavar='CONFIG', help='take the backbone of this config in place of --arch')
    parser.add_argument(
        '--pretrained',
        metavar='FILE',
        help='a checkpoint of mmmap, from which training starts. Without --arch and --backbone it tells the size too',
    )
    parser.add_argument('-o', '--out', required=True, metavar='FILE', help='where the new config goes')
    parser.add_argument('--overwrite', action='store_true', help='replace the file if it exists')


def run(args: argparse.Namespace) -> None:
    """Run ``mmmap adapt``."""
    from mmmap.engine.error_report import one_line_errors
    from mmmap.utils.errors import UserError

    with one_line_errors():
        out = Path(args.out)
        if out.suffix != '.py':
            raise UserError(f'--out {out}: the name of a config ends in .py')
        if out.exists() and not args.overwrite:
            raise UserError(f'{out} exists: choose another --out, or replace it with --overwrite')
        from mmmap.apis.adapt import adapt_config, choose_backbone, read_base

        base = read_base(args.config)
        if out.exists() and out.resolve() == base.path.resolve():
            raise UserError(f'{out} is the config itself: choose another --out')
        backbone = choose_backbone(args.arch, args.backbone, args.pretrained)
        doubt = adapt_config(base, backbone, out, _note(args))
        tried = 'trained for two iterations' if doubt else 'trained for two iterations and run'
        print(f'{out} is written: its model was built, {tried} on generated pictures.')
        if doubt:
            print(f'note: {doubt}')


def _note(args: argparse.Namespace) -> str:
    options = [
        part
        for name in ('arch', 'backbone', 'pretrained')
        if getattr(args, name) is not None
        for part in (f'--{name}', getattr(args, name))
    ]
    return f'From `{shlex.join(["mmmap", "adapt", args.config, *options])}`.'
