"""Measure images or clouds per second and peak memory of a model on this machine.

    python tools/benchmarks/benchmark_throughput.py CONFIG [--train] [--compile] [--batch-size 8] [--amp]
        [--json FILE]

CONFIG is any config of this project: pretraining on images, point clouds or both, classifiers, segmentors, detectors.
Inference computes the output of the model; of a pretraining model, the backbone's features of the whole image or cloud;
of a scene segmentor, the labels of crops; of a detector, predictions of as many objects as its test_cfg keeps at most,
masks included. --train takes forward, backward and AdamW steps on random inputs and labels;
in pretraining, with masking and decoder. Data loading is not measured, see benchmark_pipeline.py.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mmmap.command_line import COMPILE_MODES, add_output_arguments


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--train', action='store_true', help='time steps of training instead of inference')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--shape', nargs=2, type=int, metavar=('H', 'W'), help="pixels (default: the backbone's)")
    parser.add_argument('--points', type=int, metavar='N', help="points of a cloud (default: the config's)")
    parser.add_argument('--amp', action='store_true', help='mixed precision with bfloat16')
    parser.add_argument(
        '--compile',
        nargs='?',
        const='default',
        choices=list(COMPILE_MODES),
        help='with --train: compile encoder and decoder in this mode, as tools/train.py does',
    )
    parser.add_argument('--warm-up', type=int, default=3, help='first runs, which are not timed (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=15, help='timed runs; the median counts (default: 15)')
    parser.add_argument('--threads', type=int, help="(default: torch's)")
    parser.add_argument('--seed', type=int, default=0)
    add_output_arguments(parser)
    args = parser.parse_args()
    if args.compile and not args.train:
        parser.error('--compile: needs --train, evaluations are never compiled')
    return args


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import mmmap  # noqa: F401  (registers everything; first, as it lets mmpretrain load whatever torchvision is there)

# isort: split
import torch
from matplotlib.figure import Figure
from mmengine.device import get_device
from mmengine.logging import MessageHub

from mmmap.apis import ExampleBatch, build_model, example_batches
from mmmap.engine.cpu_features import keep_freed_memory
from mmmap.engine.error_report import one_line_errors
from mmmap.engine.hooks.compile_hook import compile_parts
from mmmap.engine.launch import read_config
from mmmap.utils.benchmark import describe_machine, peak_memory, print_machine, time_in_turns, write_report
from mmmap.utils.errors import UserError


def make_inference(example: ExampleBatch) -> Callable[[], object]:
    """One call of the model without gradients."""
    model = example.model.eval()

    @torch.inference_mode()
    def infer() -> object:
        return model(example.inputs, example.samples, mode=example.mode)

    return infer


def make_training(example: ExampleBatch) -> Callable[[], object]:
    """One step of training: loss, gradients, AdamW."""
    model = example.model.train()
    # The schedule of a momentum encoder asks the run for its length.
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-6, fused=True)

    def step() -> None:
        loss, _ = model.parse_losses(model(example.inputs, example.samples, mode='loss'))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(example: ExampleBatch, args: argparse.Namespace, device: torch.device) -> dict:
    """Time a batch and measure its memory, and print both."""
    if args.compile:
        compile_parts(example.model, args.compile)
    run = make_training(example) if args.train else make_inference(example)

    def step() -> None:
        if args.compile:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, torch.bfloat16, enabled=args.amp):
            run()
        if device.type == 'cuda':
            torch.cuda.synchronize()

    seconds = time_in_turns({'': step}, args.repeats, warm_up=args.warm_up)['']
    resident = sum(x.nbytes for x in (*example.model.parameters(), *example.model.buffers()))
    if args.train:  # Two averages of AdamW.
        resident += 2 * sum(p.nbytes for p in example.model.parameters() if p.requires_grad)
    peak = resident + peak_memory(step, device)
    speed = args.batch_size / statistics.median(seconds)
    print(f'{speed:.1f} {example.unit}/s (median of {args.repeats}; ', end='')
    print(f'{args.batch_size / max(seconds):.1f} to {args.batch_size / min(seconds):.1f})')
    print(f'{peak / 2**20:.0f} MiB of tensors at the peak, {resident / 2**20:.0f} of them weights and optimizer state')
    return {
        'shape': list(example.size),
        'seconds': seconds,
        f'{example.unit}_per_second': speed,
        'peak_memory_mib': peak / 2**20,
        'resident_mib': resident / 2**20,
    }


def draw(figures: dict[str, dict], batch_size: int, title: str, figure: Figure) -> None:
    """Samples a second of each run, so that an unsteady machine is seen."""
    figure.set_size_inches(6, 3)
    axes = figure.subplots()
    for name, of_part in figures.items():
        (line,) = axes.plot([batch_size / value for value in of_part['seconds']], marker='.', label=name)
        median = batch_size / statistics.median(of_part['seconds'])
        axes.axhline(median, color=line.get_color(), linewidth=0.8, label=f'{name} median'.strip())
    axes.set(xlabel='run', ylabel='samples/s', title=title, ylim=(0, None))
    axes.legend()


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    args.threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    torch.manual_seed(args.seed)
    device = torch.device(get_device())
    with one_line_errors():
        cfg = read_config(args.config)
        model = build_model(cfg).to(device)
        examples = example_batches(cfg, model, args.batch_size, args.shape, args.points, args.train)
        if args.compile and len(examples) > 1:
            raise UserError(f'--compile: only batches of one size are, {type(model).__name__} has two kinds of them')
        machine = describe_machine(args.seed, args.threads)
        print_machine(machine)
        config, kind = Path(args.config).stem, 'training' if args.train else 'inference'
        precision, figures = 'bfloat16' if args.amp else 'float32', {}
        for name, example in examples.items():
            if not args.train and isinstance(example.inputs, list):
                # The backbone sees one view at a time.
                example = replace(example, inputs=example.inputs[0])
            print(f'{config}, {kind}, {name and name + ", "}batch {example}, {precision} on {device}')
            figures[name] = measure(example, args, device)
        report = dict(
            machine=machine,
            config=config,
            kind=kind,
            device=str(device),
            amp=args.amp,
            compile=args.compile,
            batch_size=args.batch_size,
            **figures.get('', figures),
        )
        title = f'{config}, {kind}, batch {args.batch_size}'
        write_report(args, report, lambda figure: draw(figures, args.batch_size, title, figure))


if __name__ == '__main__':
    main()
