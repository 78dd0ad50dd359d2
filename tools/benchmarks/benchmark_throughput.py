"""Images a second and peak memory of a model on this machine's device.

    python tools/benchmarks/benchmark_throughput.py CONFIG [--train] [--compile] [--batch-size 8] [--amp]
        [--json FILE]

Inference is the output of a classifier, or the features that a pretraining model's backbone makes of the whole image.
--train takes forward, backward and AdamW steps on generated images and labels: of a pretraining model with its masking
and its decoder. Data loading is not in it, see benchmark_pipeline.py.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import mmmap  # noqa: F401  (registers everything; first, as it lets mmpretrain load whatever torchvision is there)

# isort: split
import torch
from matplotlib.figure import Figure
from mmengine.device import get_device
from mmengine.logging import MessageHub
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmmap.apis import build_model, example_inputs
from mmmap.engine.device import keep_freed_memory
from mmmap.engine.errors import UserError, one_line_errors
from mmmap.engine.hooks.compile_hook import COMPILE_MODES, compile_parts
from mmmap.engine.launch import read_config
from mmmap.utils.benchmark import (
    add_output_arguments,
    describe_machine,
    peak_memory,
    print_machine,
    time_in_turns,
    write_report,
)


def make_inference(model: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """One call of the model without gradients."""
    model.eval()

    @torch.inference_mode()
    def infer() -> object:
        return model(inputs, mode='tensor')

    return infer


def make_training(model: nn.Module, views: list[Tensor]) -> Callable[[], object]:
    """One step of training: loss, gradients, AdamW."""
    model.train()
    # The schedule of a momentum encoder asks the run for its length.
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    inputs = views if len(views) > 1 else views[0]
    samples = None
    if not isinstance(model, BaseSelfSupervisor):
        classes = getattr(model.head, 'num_classes', None)
        if classes is None:
            raise UserError(f'--train: the head {type(model.head).__name__} tells no num_classes to draw labels from')
        labels = torch.randint(classes, (len(inputs),), device=inputs.device)
        # Scores, as mixup and cutmix make them, suit every classification loss.
        scores = nn.functional.one_hot(labels, classes).float()
        samples = [DataSample().set_gt_label(i).set_gt_score(s) for i, s in zip(labels, scores, strict=True)]
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-6, fused=True)

    def step() -> None:
        losses = model(inputs, samples, mode='loss')
        sum(value for key, value in losses.items() if 'loss' in key).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def draw(seconds: list[float], batch_size: int, title: str, figure: Figure) -> None:
    """Images a second of each run, so that an unsteady machine is seen."""
    figure.set_size_inches(6, 3)
    axes = figure.subplots()
    axes.plot([batch_size / value for value in seconds], marker='.')
    axes.axhline(batch_size / statistics.median(seconds), color='black', linewidth=0.8, label='median')
    axes.set(xlabel='run', ylabel='images/s', title=title, ylim=(0, None))
    axes.legend()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--train', action='store_true', help='time steps of training instead of inference')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--shape', nargs=2, type=int, metavar=('H', 'W'), help="pixels (default: the backbone's)")
    parser.add_argument('--amp', action='store_true', help='mixed precision with bfloat16')
    parser.add_argument(
        '--compile',
        nargs='?',
        const='default',
        choices=list(COMPILE_MODES),
        help='with --train: compile encoder and decoder in this mode, as tools/train.py does',
    )
    parser.add_argument('--warm-up', type=int, default=3, help='runs that are not counted (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=15, help='runs of which to take the median (default: 15)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--seed', type=int, default=0)
    add_output_arguments(parser)
    args = parser.parse_args()
    if args.compile and not args.train:
        parser.error('--compile: needs --train, evaluations are never compiled')
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    torch.manual_seed(args.seed)
    device = torch.device(get_device())
    with one_line_errors():
        cfg = read_config(args.config)
        model = build_model(cfg).to(device)
        views = example_inputs(cfg, model, args.batch_size, args.shape)
        shape = views[0].shape[-2:]
        if args.compile:
            compile_parts(model, args.compile)
        run = make_training(model, views) if args.train else make_inference(model, views[0])

        def step() -> None:
            if args.compile:
                torch.compiler.cudagraph_mark_step_begin()
            with torch.autocast(device.type, torch.bfloat16, enabled=args.amp):
                run()
            if device.type == 'cuda':
                torch.cuda.synchronize()

        machine = describe_machine(args.seed, args.threads)
        print_machine(machine)
        seconds = time_in_turns({'': step}, args.repeats, warm_up=args.warm_up)['']
        resident = sum(x.nbytes for x in (*model.parameters(), *model.buffers()))
        if args.train:  # Two averages of AdamW.
            resident += 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
        peak = resident + peak_memory(step, device)
    speed = args.batch_size / statistics.median(seconds)
    kind = 'training' if args.train else 'inference'
    title = f'{Path(args.config).stem}, {kind}, batch {args.batch_size} of {shape[0]} x {shape[1]} pixels'
    print(f'{title}, {"bfloat16" if args.amp else "float32"} on {device}')
    print(f'{speed:.1f} images/s (median of {args.repeats}; ', end='')
    print(f'{args.batch_size / max(seconds):.1f} to {args.batch_size / min(seconds):.1f})')
    print(f'{peak / 2**20:.0f} MiB of tensors at the peak, {resident / 2**20:.0f} of them weights and optimizer state')
    report = dict(
        machine=machine,
        config=Path(args.config).stem,
        kind=kind,
        device=str(device),
        amp=args.amp,
        compile=args.compile,
        batch_size=args.batch_size,
        shape=list(shape),
        seconds=seconds,
        images_per_second=speed,
        peak_memory_mib=peak / 2**20,
        resident_mib=resident / 2**20,
    )
    write_report(args, report, lambda figure: draw(seconds, args.batch_size, title, figure))


if __name__ == '__main__':
    main()
