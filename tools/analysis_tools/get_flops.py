"""Count parameters and FLOPs of a model, by part, the selective scans included.

    python tools/analysis_tools/get_flops.py CONFIG [--shape H W] [--batch 1] [--json FILE]

Nothing is computed where the model allows, so that any size takes seconds. A multiply-add is two operations. Of a
pretraining model the encoder sees the visible tokens only. See mmmap.utils.complexity for what is counted.
"""

import argparse
import json
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor

import mmmap  # noqa: F401  (registers everything)
from mmmap.apis import build_model, example_inputs
from mmmap.engine.errors import one_line_errors
from mmmap.engine.launch import read_config
from mmmap.utils.complexity import Complexity, count_complexity


def count(cfg: Config, batch: int, shape: list[int] | None, device: str) -> tuple[dict[str, Complexity], list[Tensor]]:
    """The counts of a config's model, and what it was run on."""
    with torch.device(device):
        model = build_model(cfg)
        views = example_inputs(cfg, model, batch, shape)
        return count_complexity(model, views if len(views) > 1 else views[0]), views


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
        try:
            parts, views = count(cfg, args.batch, args.shape, 'meta')
        except RuntimeError as error:
            if 'meta' not in str(error):
                raise
            print('The model looks at values, so that it has to be computed.')
            parts, views = count(cfg, args.batch, args.shape, 'cpu')
        shape = views[0].shape[-2:]
        parameters = sum(part.parameters for part in parts.values())
        flops = sum(part.flops for part in parts.values())
        of = f'{len(views)} views of ' if len(views) > 1 else ''
        print(
            f'{Path(args.config).stem}: {of}{args.batch} x {shape[0]} x {shape[1]} pixels, a multiply-add is two FLOPs'
        )
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
