"""Count parameters and FLOPs of a model by part, selective scans included.

    python tools/analysis_tools/get_flops.py CONFIG [--shape H W | --points N] [--batch 1] [--json FILE]

CONFIG is any config of this project: pretraining on images, point clouds or both, classifiers, segmentors, detectors.
Most models are counted without computing them, in seconds for any size. A multiply-add is two operations. In
pretraining, the encoder gets only the visible tokens. Of a scene, one crop is counted. Of a detector, a prediction is
counted: backbone, neck and heads at the given size, with as many objects as its test_cfg keeps at most. See
mmmap.analysis for what is counted.
"""

import argparse
import json
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--shape', nargs=2, type=int, metavar=('H', 'W'), help="pixels (default: the backbone's)")
    parser.add_argument('--points', type=int, metavar='N', help="points of a cloud (default: the config's)")
    parser.add_argument('--batch', type=int, default=1, help='samples in the counted batch (default: %(default)s)')
    parser.add_argument('--json', metavar='FILE', help='also write the figures to this file')
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import torch
from mmengine.config import Config
from torch import nn

import mmmap  # noqa: F401  (registers everything)
from mmmap.analysis import Complexity, count_complexity
from mmmap.apis import ExampleBatch, build_model, example_batches, is_detector
from mmmap.engine.error_report import one_line_errors
from mmmap.engine.launch import read_config


def count(cfg: Config, args: argparse.Namespace) -> tuple[nn.Module, dict[str, tuple[ExampleBatch, dict]]]:
    """The model of a config, and for each of its parts the batch and the counts."""
    try:
        with torch.device('meta'):
            model = build_model(cfg)
            if not is_detector(model):
                return model, count_parts(cfg, model, args)
    except RuntimeError as error:
        if 'meta' not in str(error):
            raise
    print('This model depends on the values of its input: it is computed on the CPU.')
    torch.manual_seed(0)
    model = build_model(cfg)
    return model, count_parts(cfg, model, args)


def count_parts(cfg: Config, model: nn.Module, args: argparse.Namespace) -> dict[str, tuple[ExampleBatch, dict]]:
    """For each part of a model the batch and the counts."""
    counted = {}
    for name, example in example_batches(cfg, model, args.batch, args.shape, args.points).items():
        counts = count_complexity(example.model, example.inputs, example.samples, example.mode)
        counted[name] = example, counts
    return counted


def show(title: str, parts: dict[str, Complexity]) -> dict:
    """Print the counts of a model, and return them as a report."""
    parameters, flops = (sum(getattr(part, key) for part in parts.values()) for key in ('parameters', 'flops'))
    print(f'{title}, a multiply-add is two FLOPs')
    print(f'{"part":20} {"parameters":>13} {"GFLOPs":>10} {"share":>7}')
    for name, part in parts.items():
        if part.parameters or part.flops:
            print(f'{name:20} {part.parameters:13,} {part.flops / 1e9:10.3f} {part.flops / flops:7.1%}')
    print(f'{"all":20} {parameters:13,} {flops / 1e9:10.3f}')
    return dict(parameters=parameters, flops=flops, parts={name: vars(part) for name, part in parts.items()})


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        cfg = read_config(args.config)
        torch.manual_seed(0)
        model, counted = count(cfg, args)
        config = Path(args.config).stem
        report = dict(config=config, batch=args.batch)
        for name, (example, parts) in counted.items():
            figures = show(f'{config}: {name and name + ": "}{example}', parts)
            figures = dict(shape=list(example.size)) | figures
            report |= {name: figures} if name else figures
        if len(counted) > 1:
            # The parts share weights: these count once.
            report['parameters'] = sum(parameter.numel() for parameter in model.parameters())
            print(f'{report["parameters"]:,} parameters in all, those that {" and ".join(counted)} share counted once')
        if args.json:
            Path(args.json).parent.mkdir(parents=True, exist_ok=True)
            Path(args.json).write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main()
