"""Time the data pipeline of pretraining: images per second on one core, ours against mmpretrain's.

    python tools/benchmarks/benchmark_pipeline.py [--json FILE] [--plot FILE]

Decoding, random crop, flip and packing of JPEGs made from the two sample photos of scikit-learn, in one process
and one thread. All pipelines get the same images and crops and take turns image by image: the ratios hold even on a
shared machine.
"""

import argparse
import tempfile
import time
from pathlib import Path

from mmmap.command_line import add_output_arguments


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=32, help='number of images (default: %(default)s)')
    parser.add_argument('--size', type=int, nargs=2, default=(500, 375), metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--quality', type=int, default=98, help='quality of the JPEGs (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=15, help='passes over the images (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    add_output_arguments(parser)
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from sklearn.datasets import load_sample_images

import mmmap  # noqa: F401  registers our transforms
from mmmap.engine.error_report import one_line_errors
from mmmap.utils.benchmark import describe_machine, print_machine, write_report

CROP = dict(scale=224, crop_ratio_range=(0.2, 1.0), interpolation='bicubic')
END = [dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
PILLOW_CROP = dict(type='RandomResizedCrop', backend='pillow', **CROP)
PIPELINES = {
    'mmpretrain': [dict(type='LoadImageFromFile'), PILLOW_CROP, *END],
    'LoadImageChecked': [dict(type='LoadImageChecked'), PILLOW_CROP, *END],
    'LoadRandomResizedCrop': [dict(type='LoadRandomResizedCrop', **CROP), *END],
}


def make_images(folder: Path, count: int, size: tuple[int, int], quality: int, seed: int) -> list[str]:
    """Write JPEGs of random parts of two photos.

    Args:
        folder: Where to.
        count: How many.
        size: (width, height) in pixels.
        quality: Of the JPEGs; 98 gives about 100 KB at 500 x 375, as ImageNet's images have on average.
        seed: Of the parts.

    Returns:
        Their paths.
    """
    generator = np.random.default_rng(seed)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    paths = []
    for index in range(count):
        photo = photos[index % len(photos)]
        # From three quarters to all of what fits into the photo.
        scale = generator.uniform(0.75, 1) * min(photo.width / size[0], photo.height / size[1])
        width, height = scale * size[0], scale * size[1]
        x, y = generator.uniform(0, photo.width - width), generator.uniform(0, photo.height - height)
        part = photo.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + width, y + height))
        paths.append(str(folder / f'{index}.jpg'))
        part.save(paths[-1], quality=quality)
    return paths


def run(pipeline: list[BaseTransform], path: str, seed: int) -> list[float]:
    """Seconds of each transform of a pipeline for one image."""
    np.random.seed(seed)
    results = {'img_path': path}
    seconds = []
    for transform in pipeline:
        start = time.perf_counter()
        results = transform(results)
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(paths: list[str], repeats: int, seed: int) -> tuple[dict[str, dict[str, float]], float]:
    """Median milliseconds an image of every stage of every pipeline, and of decoding by OpenCV alone.

    Args:
        paths: The images.
        repeats: How often each is loaded, after once for warming up.
        seed: Of the crops and flips.
    """
    pipelines = {name: [TRANSFORMS.build(cfg) for cfg in cfgs] for name, cfgs in PIPELINES.items()}
    seconds: dict[str, list[list[float]]] = {name: [] for name in pipelines}
    decode: list[float] = []
    for repeat in range(repeats + 1):
        rounds: dict[str, list[list[float]]] = {name: [] for name in pipelines}
        decode_round = []
        for index, path in enumerate(paths):
            for name, pipeline in pipelines.items():
                rounds[name].append(run(pipeline, path, seed + repeat * len(paths) + index))
            content = np.fromfile(path, np.uint8)
            start = time.perf_counter()
            cv2.imdecode(content, cv2.IMREAD_COLOR)
            decode_round.append(time.perf_counter() - start)
        if repeat:
            decode.append(np.mean(decode_round))
            for name in pipelines:
                seconds[name].append(np.mean(rounds[name], axis=0))
    # A round's mean takes in images and crops of all sizes, the median leaves out rounds that something disturbed.
    stages = {
        name: {cfg['type']: float(value) * 1e3 for cfg, value in zip(PIPELINES[name], np.median(rows, 0), strict=True)}
        for name, rows in seconds.items()
    }
    return stages, float(np.median(decode)) * 1e3


def draw(stages: dict[str, dict[str, float]], decode: float, title: str, figure: Figure) -> None:
    """Draw the milliseconds of the stages as one bar a pipeline."""
    stage_names = list(dict.fromkeys(stage for pipeline in stages.values() for stage in pipeline))
    colors = {stage: f'C{index}' for index, stage in enumerate(stage_names)}
    figure.set_size_inches(9, 3)
    axes = figure.subplots()
    longest = 0.0
    for name, pipeline in stages.items():
        left = 0.0
        for stage, milliseconds in pipeline.items():
            axes.barh(name, milliseconds, left=left, color=colors[stage])
            left += milliseconds
        axes.text(left, name, f' {1e3 / left:.0f} images/s', va='center')
        longest = max(longest, left)
    for stage, color in colors.items():
        axes.bar(0, 0, color=color, label=stage)
    axes.axvline(decode, color='black', linestyle=':', label='decoding alone')
    axes.set(xlabel='ms an image on one core', title=title, xlim=(0, longest * 1.25))
    axes.invert_yaxis()
    axes.legend(loc='upper left', bbox_to_anchor=(1, 1), fontsize='small')


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_images(Path(folder), args.images, tuple(args.size), args.quality, args.seed)
        kilobytes = sum(Path(path).stat().st_size for path in paths) / len(paths) / 1e3
        stages, decode = measure(paths, args.repeats, args.seed)
    totals = {name: sum(pipeline.values()) for name, pipeline in stages.items()}
    title = f'{args.size[0]} x {args.size[1]} JPEGs of {kilobytes:.0f} KB'
    machine = describe_machine(seed=args.seed, threads=1)
    print_machine(machine)
    print(f'{args.images} {title}, {args.repeats} passes')
    for name, pipeline in stages.items():
        total = totals[name]
        print(f'{name:24s} {1e3 / total:8.0f} images/s {totals["mmpretrain"] / total:6.2f}x {total:8.2f} ms')
        for stage, milliseconds in pipeline.items():
            print(f'    {stage:24s} {milliseconds:25.2f} ms {milliseconds / total * 100:4.0f} %')
    print(f'{"decoding alone (OpenCV)":24s} {decode:29.2f} ms')
    report = dict(
        machine=machine,
        images=args.images,
        size=list(args.size),
        quality=args.quality,
        kilobytes=kilobytes,
        repeats=args.repeats,
        milliseconds=stages,
        decode_milliseconds=decode,
        images_per_second={name: 1e3 / total for name, total in totals.items()},
        speedup={name: totals['mmpretrain'] / total for name, total in totals.items()},
    )
    write_report(args, report, lambda figure: draw(stages, decode, title, figure))


if __name__ == '__main__':
    with one_line_errors():
        main()
