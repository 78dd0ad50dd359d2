"""Predict pictures: the classes of each, or boxes and masks drawn on it.

A classifier writes a table of the best classes and their scores. A detector or segmentor writes each picture with its
predictions, and the predictions as files. A second start goes on where the first one was interrupted.
"""

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``mmmap predict``."""
    parser.add_argument('config', help='a config file, or the name of an installed one, such as mmmap::map/...')
    parser.add_argument('checkpoint', help='its checkpoint (.pth)')
    parser.add_argument('inputs', nargs='+', help='pictures, and folders of them')
    parser.add_argument('-o', '--out', default='predictions', help='folder of the results (default: %(default)s)')
    parser.add_argument('--top', type=int, default=5, help='classes of each picture (default: %(default)s)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score drawn (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=16, help='pictures at a time (default: %(default)s)')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: a GPU if there is one)')


def run(args: argparse.Namespace) -> None:
    """Run ``mmmap predict``."""
    import torch

    from mmmap.apis.prediction import continue_results, find_pictures
    from mmmap.engine.config_file import read_config
    from mmmap.engine.config_parts import dense_kind
    from mmmap.engine.error_report import one_line_errors
    from mmmap.utils.errors import UserError

    with one_line_errors():
        cfg = read_config(args.config)
        pictures = find_pictures(args.inputs)
        if args.top < 1 or args.batch_size < 1:
            raise UserError(f'--top {args.top}, --batch-size {args.batch_size}: both must be positive')
        device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
        out = Path(args.out)
        continue_results(out / 'made_by.json', cfg, args.checkpoint, f'top {args.top}, score {args.score_thr}')
        if 'model' in cfg and dense_kind(cfg):
            faulty = _draw(args, cfg, pictures, out, device)
        else:
            faulty = _classify(args, cfg, pictures, out, device)
        if faulty:
            raise UserError(f'{len(faulty)} of {len(pictures)} pictures could not be used, first {faulty[0]}')


def _classify(args: argparse.Namespace, cfg: Any, pictures: list, out: Path, device: str) -> list[str]:
    import csv

    from tqdm import tqdm

    from mmmap.apis.prediction import classify, load_model

    model = load_model(cfg, args.checkpoint, device)
    out.mkdir(parents=True, exist_ok=True)
    table = out / 'predictions.csv'
    done = set()
    if table.exists():
        with table.open(newline='', encoding='utf-8') as file:
            done = {row[0] for row in csv.reader(file) if len(row) > 1}
    left = {path: name for path, name in pictures if name not in done}
    faulty: list[str] = []

    def report(path: str, error: Exception) -> None:
        faulty.append(path)
        tqdm.write(f'left out: {error}')

    classes = model.dataset_meta.get('classes')
    with table.open('a', newline='', encoding='utf-8') as file, tqdm(total=len(left), unit='picture') as bar:
        writer = csv.writer(file)
        if not done:
            writer.writerow(['file', *(part for i in range(1, args.top + 1) for part in (f'class {i}', f'score {i}'))])
        for path, scores in classify(model, cfg, list(left), args.batch_size, report):
            best = scores.argsort()[::-1][: args.top]
            named = [(classes[i] if classes else i, float(scores[i])) for i in best]
            writer.writerow([left[path], *(part for name, score in named for part in (name, f'{score:.4f}'))])
            file.flush()
            tqdm.write(f'{left[path]}: ' + ', '.join(f'{name} {score:.3f}' for name, score in named))
            bar.update()
    print(f'{table}: {len(pictures) - len(faulty)} pictures')
    return faulty


def _draw(args: argparse.Namespace, cfg: Any, pictures: list, out: Path, device: str) -> list[str]:
    from tqdm import tqdm

    from mmmap.apis.prediction import dense_predictor

    predict = dense_predictor(cfg, args.checkpoint, device, args.score_thr)
    faulty = []
    for path, name in tqdm(pictures, unit='picture'):
        # The pictures of a folder below have a folder of their own, as two may have one name.
        folder = out / Path(name).parent
        mark = folder / 'vis' / Path(name).name
        if not mark.with_suffix('.jpg').exists() and not mark.exists():
            try:
                predict(path, folder)
            except OSError as error:
                faulty.append(path)
                tqdm.write(f'left out: {error}')
    print(f'{out}: {len(pictures) - len(faulty)} pictures')
    return faulty
