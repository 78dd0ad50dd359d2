"""A hook that compares the classes of data sets and checkpoints by name before anything is learned or measured."""

import re

from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor
from mmengine.runner import Runner
from torch import nn

from mmmap.registry import DATASETS, HOOKS

from ...utils.class_names import listed, names_missing, names_of
from ...utils.errors import UserError
from ..class_labels import align_labels, dataset_classes
from ..loops import KNNLoop
from ..wrapped_datasets import leaf_datasets


@HOOKS.register_module()
class ClassNamesHook(Hook):
    """Let a label mean the same class in training, validation, test and checkpoint; the tools register it.

    The classes of a model are those of the training set, or those in the checkpoint that is resumed or tested. Data
    sets that lack some or list them in another order get their labels mapped by name, which the log tells; other
    classes end the run. Training may start from a checkpoint of other classes; if its head is loaded, the log warns.
    Models that predict no classes, and a test by neighbours, which compares for itself, are left alone.
    """

    # What other hooks read of a data set is right by then.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.classes: tuple[str, ...] | None = None
        self.source = 'the checkpoint'
        self._takes_head = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the names that a checkpoint has of the classes it was trained on."""
        meta = checkpoint.get('meta') or {}
        of_data = meta.get('dataset_meta')
        of_data = of_data if isinstance(of_data, dict) else meta
        classes = of_data.get('classes', of_data.get('CLASSES'))
        self.source = f'the checkpoint {runner.cfg.get("load_from")}'
        self.classes = None if isinstance(classes, str) else names_of(classes, self.source)
        self._takes_head = _takes_head(runner.model, checkpoint.get('state_dict', checkpoint))

    def before_train(self, runner: Runner) -> None:
        """Compare the training set with the checkpoint, and the validation set with both.

        Raises:
            UserError: If they have classes that do not fit.
        """
        if not _predicts_classes(runner.model):
            return
        loop, key = runner.train_loop, 'train_dataloader.dataset'
        dataset = loop.dataloader.dataset
        own = dataset_classes(dataset, key)
        if self.classes is None or not runner.cfg.get('resume'):
            if self._takes_head and own and self.classes and own != self.classes:
                new = names_missing(self.classes, own)
                differs = f'{listed(new)} unknown to it' if new else 'some of its, or in another order'
                runner.logger.warning(
                    f'{self.source} was trained on other classes than {key} has ({differs}): the head of the model '
                    'starts from weights of those.'
                )
            self.classes, self.source = own, key
        if self.classes is None:
            return
        outputs = _outputs(runner.model)
        if own and outputs is not None and len(self.classes) > outputs:
            raise UserError(
                f'{self.source} has {len(self.classes)} classes, model.head.num_classes={outputs}: set it to '
                f'{len(self.classes)}'
            )
        started = hasattr(loop, 'dataloader_iterator') and loop.dataloader.num_workers
        fixed = 'in a training of iterations its workers have the labels already (num_workers=0 maps them)'
        self._align(runner, dataset, key, fixed if started else None)
        if runner.val_loop is not None:
            self._align(runner, runner.val_loop.dataloader.dataset, 'val_dataloader.dataset')
            _tell_classes(runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        """Compare the test set with the checkpoint; if that has no names, with the training set of the config.

        Raises:
            UserError: If they have classes that do not fit.
        """
        loop, key = runner.test_loop, 'test_dataloader.dataset'
        dataset = loop.dataloader.dataset
        by_model = _predicts_classes(runner.model) and not isinstance(loop, KNNLoop)
        own = dataset_classes(dataset, key) if by_model else None
        if own and self.classes is None:
            nameless, self.source = self.source, 'train_dataloader.dataset'
            self.classes = _classes_of_config(runner)
            if self.classes is None:
                self._take_for_granted(runner, own, key, nameless)
        if own and self.classes is not None:
            self._align(runner, dataset, key)
        _tell_classes(loop)

    def _take_for_granted(self, runner: Runner, own: tuple[str, ...], key: str, nameless: str) -> None:
        """A checkpoint without names: their number is all there is to compare."""
        outputs = _outputs(runner.model)
        if outputs not in (None, len(own)):
            raise UserError(
                f'{key} has {len(own)} classes ({listed(own)}), the head of the model {outputs}, and {nameless} does '
                'not say which: name them, train_dataloader.dataset.metainfo.classes=FILE with a name on each line, '
                'in the order of the training'
            )
        runner.logger.warning(
            f'{nameless} does not name its classes: those of {key} are taken for them, in that order.'
        )

    def _align(self, runner: Runner, dataset: object, key: str, fixed: str | None = None) -> None:
        for message in align_labels(dataset, key, self.classes, self.source, fixed):
            runner.logger.info(message)


def _heads(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a model that have an output for each class."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if getattr(module, 'num_classes', None) and not isinstance(module, BaseDataPreprocessor)
    ]


def _predicts_classes(model: nn.Module) -> bool:
    return bool(_heads(model))


def _outputs(model: nn.Module) -> int | None:
    """The number of classes of a classifier."""
    return next((head.num_classes for name, head in _heads(model) if name.split('.')[-1] == 'head'), None)


def _takes_head(model: nn.Module, weights: dict) -> bool:
    """Whether outputs of classes in a checkpoint fit the model, so that they are loaded."""
    stored = {re.sub(r'^module\.', '', key): value for key, value in weights.items()}
    for name, head in _heads(model):
        for key, value in head.named_parameters(prefix=name):
            other = stored.get(re.sub(r'^(module\.)+', '', key))
            # A detector has one more, for the background.
            if other is not None and value.shape == other.shape and value.shape[0] - head.num_classes in (0, 1):
                return True
    return False


def _classes_of_config(runner: Runner) -> tuple[str, ...] | None:
    """The names that the training set of a config would have, if it can be told here."""
    loader = runner.cfg.get('train_dataloader')
    found = []
    try:
        for key, leaf in leaf_datasets(loader.dataset, 'train_dataloader.dataset'):
            dataset = DATASETS.build({**leaf, 'pipeline': [], 'lazy_init': True})
            known = names_of(dataset.metainfo.get('classes'), key)
            found.append(known or dataset_classes(dataset, key))
    # The data need not be on the machine that tests.
    except Exception:
        return None
    return max(filter(None, found), key=len, default=None)


def _tell_classes(loop: object) -> None:
    """Let the metrics and the pictures of a loop know the classes of its data set."""
    if hasattr(loop.dataloader.dataset, 'metainfo'):
        meta = loop.dataloader.dataset.metainfo
        loop.evaluator.dataset_meta = loop.runner.visualizer.dataset_meta = meta
