"""Draw the confusion matrix of a classifier, a segmentor or a detector.

    python tools/analysis_tools/confusion_matrix.py CONFIG CHECKPOINT|PREDICTIONS.pkl [--out FILE.png] [--json FILE]

PREDICTIONS.pkl is a file of tools/test.py --out. A checkpoint is tested first, as by tools/test.py. Counted are images,
pixels of a segmentor, and objects of a detector: each detection above --score-thr takes one object that it overlaps by
an IoU of --iou-thr, of its own class if there is one. 'background' are detections of no object, and objects that were
missed.
"""

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mmmap.command_line import add_common_options, add_data_option


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of the model')
    parser.add_argument('source', help='its checkpoint, or a .pkl of predictions')
    parser.add_argument('--out', default='confusion_matrix.png', help='picture to write (default: %(default)s)')
    parser.add_argument('--json', metavar='FILE', help='also write the counts to this file, one list per true class')
    parser.add_argument('--iou-thr', type=float, default=0.5, help='of detectors (default: %(default)s)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='of detectors (default: %(default)s)')
    add_data_option(parser)
    add_common_options(parser)
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import mmmap  # noqa: F401  (registers everything; first, as it lets mmpretrain load whatever torchvision is there)

# isort: split
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmpretrain.evaluation import ConfusionMatrix
from mmpretrain.models.classifiers import BaseClassifier
from torch import Tensor

from mmmap.engine.checkpoint_files import check_checkpoint_file
from mmmap.engine.class_labels import dataset_classes
from mmmap.engine.config_parts import dense_kind
from mmmap.engine.data_option import use_test_folder
from mmmap.engine.dense_confusion import dense_confusion_metric
from mmmap.engine.error_report import one_line_errors
from mmmap.engine.launch import build_runner, load_config, require_fit
from mmmap.engine.process_group import leave_process_group
from mmmap.engine.wrapped_datasets import leaf_datasets
from mmmap.registry import DATASETS
from mmmap.utils.class_names import names_of
from mmmap.utils.errors import UserError
from mmmap.utils.safe_load import unpickle

#: Counts are written into the picture up to this number of classes.
READABLE = 20


def evaluate_checkpoint(cfg: Config, args: argparse.Namespace) -> tuple[Tensor, Sequence[str] | None]:
    """Confusion matrix of a checkpoint on a test set, and the names of the classes if the data set has some."""
    if args.data is not None:
        # The log of a test comes after this.
        print('\n'.join(use_test_folder(cfg, args.data, args.source)))
    check_checkpoint_file(args.source)
    cfg.load_from, cfg.resume = args.source, False
    dense, evaluator = dense_kind(cfg), cfg.get('test_evaluator')
    cfg.test_evaluator = [] if dense else dict(type='mmpretrain.ConfusionMatrix')
    runner = build_runner(cfg, [])
    model = getattr(runner.model, 'module', runner.model)
    if not dense and not isinstance(model, BaseClassifier) and 'KNNLoop' not in str(cfg.test_cfg.get('type')):
        raise UserError(
            f'{cfg.filename}: {type(model).__name__} is no classifier of whole images or clouds, segmentor or '
            'detector, whose confusion matrix this tool draws: test.py prints the scores of its classes'
        )
    require_fit(runner, args.source)
    dataset = runner.test_dataloader.dataset
    if dense:
        cfg.test_evaluator = evaluator
        metric = dense_confusion_metric(cfg, dataset, args.iou_thr, args.score_thr)
        _ = runner.test_loop
        runner.test_evaluator.metrics.append(metric)
    matrix = runner.test()['confusion_matrix/result']
    # These are now the classes of the model; the test set may lack some.
    return matrix, dataset_classes(dataset, 'test_dataloader.dataset')


def read_dense_predictions(cfg: Config, args: argparse.Namespace) -> tuple[Tensor, Sequence[str] | None]:
    """Confusion matrix of stored predictions of a segmentor or detector, and the names of the classes."""
    predictions = unpickle(args.source)
    key = {'segmentor': 'pred_sem_seg', 'detector': 'pred_instances'}[str(dense_kind(cfg))]
    if not predictions or not all(isinstance(p, dict) and key in p for p in predictions):
        raise UserError(f'{args.source}: not predictions of a {dense_kind(cfg)} as tools/test.py --out writes them')
    dataset = DATASETS.build({'_scope_': cfg.default_scope, **cfg.test_dataloader.dataset})
    metric = dense_confusion_metric(cfg, dataset, args.iou_thr, args.score_thr)
    matrix = Evaluator(metric).offline_evaluate(predictions, None)['confusion_matrix/result']
    return matrix, dataset_classes(dataset, 'test_dataloader.dataset')


def read_predictions(cfg: Config, args: argparse.Namespace) -> tuple[Tensor, Sequence[str] | None]:
    """Confusion matrix of stored predictions, and the names of the classes if they or the data set have some."""
    path, data = args.source, args.data
    if not Path(path).is_file():
        raise UserError(f'predictions not found: {path}')
    if dense_kind(cfg):
        return read_dense_predictions(cfg, args)
    predictions = unpickle(path)
    if not predictions or not all(isinstance(p, dict) and {'gt_label', 'pred_score'} <= set(p) for p in predictions):
        raise UserError(f'{path}: not predictions of a classifier as tools/test.py --out writes them')
    classes = names_of(predictions[0].get('classes'), path)
    if any(names_of(p.get('classes'), path) != classes for p in predictions):
        raise UserError(f'{path}: predictions of tests with different classes')
    count = len(predictions[0]['pred_score'])
    if data is not None and classes is not None:
        print(f'--data {data} is not used: {path} names its classes')
    elif data is not None:
        print('\n'.join(use_test_folder(cfg, data, None)))
    if classes is None:
        with suppress(FileNotFoundError):  # The data may be on another machine.
            scope = cfg.get('default_scope', 'mmpretrain')
            for _, dataset in leaf_datasets(cfg.test_dataloader.dataset, ''):
                dataset.pipeline = []
            dataset = DATASETS.build({'_scope_': scope, **cfg.test_dataloader.dataset})
            classes = dataset_classes(dataset, 'test_dataloader.dataset')
        if classes is not None and len(classes) != count:
            raise UserError(
                f'{path} does not name its {count} classes and test_dataloader.dataset has {len(classes)}: which is '
                'which is not known; write it again by tools/test.py --out'
            )
    return Evaluator(ConfusionMatrix()).offline_evaluate(predictions, None)['confusion_matrix/result'], classes


def most_confused(matrix: Tensor, names: list[str], count: int = 5) -> list[str]:
    """The largest entries off the diagonal, one line each."""
    wrong = matrix.clone().fill_diagonal_(0)
    values, places = wrong.flatten().topk(min(count, wrong.numel()))
    pairs = [(int(n), *divmod(int(place), len(matrix))) for n, place in zip(values, places, strict=True) if n]
    return [f'{n} of {int(matrix[i].sum())} {names[i]} taken for {names[j]}' for n, i, j in pairs]


def summary(matrix: Tensor, kind: str | None) -> str:
    """One line on the whole matrix."""
    if kind == 'detector':
        objects, right = int(matrix[:-1].sum()), int(matrix.diag()[:-1].sum())
        missed, of_nothing = int(matrix[:-1, -1].sum()), int(matrix[-1].sum())
        share = f'{100 * right / objects:.2f} % of ' if objects else ''
        return f'{share}{objects} objects found as their class, {missed} missed; {of_nothing} detections of no object'
    share = 100 * float(matrix.diag().sum() / matrix.sum())
    return f'accuracy: {share:.2f} % of {int(matrix.sum())} {"pixels" if kind else "images"}'


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        cfg = load_config(args)
    with one_line_errors(cfg):
        if cfg.get('test_dataloader') is None or cfg.get('test_cfg') is None:
            raise UserError(f'{args.config} has no test_dataloader or no test_cfg: nothing to test')
        read = read_predictions if args.source.endswith(('.pkl', '.pickle')) else evaluate_checkpoint
        matrix, classes = read(cfg, args)
        matrix = matrix.cpu()
        kind = dense_kind(cfg)
        # Of a detector, the last row and column are no class. A head may have more outputs than the set has classes.
        names = [*(classes or ()), *(['background'] if kind == 'detector' else [])]
        names += map(str, range(len(names), len(matrix)))
        print(summary(matrix, kind))
        print('\n'.join(most_confused(matrix, names)))
        figure = ConfusionMatrix.plot(matrix, include_values=len(matrix) <= READABLE, classes=names, show=False)
        for path in filter(None, (args.out, args.json)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.out)
        if args.json:
            Path(args.json).write_text(json.dumps(dict(classes=names, counts=matrix.tolist())) + '\n')
        print(f'wrote {args.out}')
    leave_process_group()


if __name__ == '__main__':
    main()
