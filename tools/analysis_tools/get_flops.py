"""Count parameters and FLOPs of a model, by part, the selective scans included.

    python tools/analysis_tools/get_flops.py CONFIG [--shape H W] [--batch 1] [--json FILE]

Nothing is computed, so that any size takes seconds. A multiply-add is two operations. Of a pretraining model the
encoder sees the visible tokens only. See mmmap.utils.complexity for what is counted.
"""

import argparse
import json
from pathlib import Path

import torch

import mmmap  # noqa: F401  (registers everything)
from mmmap.apis import build_model
from mmmap.engine.errors import UserError, one_line_errors
from mmmap.engine.launch import read_config
from mmmap.utils.complexity import count_complexity


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--shape', nargs=2, type=int, metavar=('H', 'W'), help="pixels (default: the backbone's)")
    parser.add_argument('--batch', type=int, default=1, help='images (default: %(default)s); FLOPs are of all of them')
    parser.add_argument('--json', metavar='FILE', help='also write the figures to this file')
    args = parser.parse_args()
    with one_line_errors():
        cfg = read_config(args.config)
        with torch.device('meta'):
            model = build_model(cfg)
            shape = args.shape or getattr(model.backbone, 'img_size', None)
            if shape is None:
                raise UserError(f'{type(model.backbone).__name__} tells no image size: give one with --shape')
            inputs = torch.empty(args.batch, getattr(model.backbone, 'in_channels', 3), *shape)
            parts = count_complexity(model, inputs)
        parameters = sum(part.parameters for part in parts.values())
        flops = sum(part.flops for part in parts.values())
        print(f'{Path(args.config).stem}: {args.batch} x {shape[0]} x {shape[1]} pixels, a multiply-add is two FLOPs')
        print(f'{"part":20} {"parameters":>13} {"GFLOPs":>10} {"share":>7}')
        for name, part in parts.items():
            if part.parameters or part.flops:
                print(f'{name:20} {part.parameters:13,} {part.flops / 1e9:10.3f} {part.flops / flops:7.1%}')
        print(f'{"all":20} {parameters:13,} {flops / 1e9:10.3f}')
        if args.json:
            report = dict(
                config=Path(args.config).stem,
                batch=args.batch,
                shape=list(shape),
                parameters=parameters,
                flops=flops,
                parts={name: vars(part) for name, part in parts.items()},
            )
            Path(args.json).parent.mkdir(parents=True, exist_ok=True)
            Path(args.json).write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main()
