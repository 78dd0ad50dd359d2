"""A hook that compares the class names of data sets and checkpoints before a training or test."""

import re
from typing import Any

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
    """Make a label mean the same class in training, validation, test and checkpoint. The tools register this hook.

    The classes of a model are those of the training set, or those in the checkpoint that is resumed or tested. The
    labels of data sets that lack some classes or have another order are mapped by name, and the log says so. Unknown
    classes end the run. Training may start from a checkpoint of other classes; if its head is loaded, the log warns.
    Nothing happens for models without classes, and in a test by ``KNNLoop``, which compares the classes itself.
    """

    # Runs before other hooks read the data sets.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.classes: tuple[str, ...] | None = None
        self.source = 'the checkpoint'
        self._takes_head = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the class names in a checkpoint."""
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
            UserError: If their classes do not fit.
        """
        if not _heads(runner.model):
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
                    'starts from the weights for those classes.'
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
        fixed = 'in a training by iterations its workers have the labels already (num_workers=0 maps them)'
        self._align(runner, dataset, key, fixed if started else None)
        if runner.val_loop is not None:
            self._align(runner, runner.val_loop.dataloader.dataset, 'val_dataloader.dataset')
            _tell_classes(runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        """Compare the test set with the checkpoint or, if that has no names, with the training set of the config.

        Raises:
            UserError: If their classes do not fit.
        """
        loop, key = runner.test_loop, 'test_dataloader.dataset'
        dataset = loop.dataloader.dataset
        by_model = _heads(runner.model) and not isinstance(loop, KNNLoop)
        own = dataset_classes(dataset, key) if by_model else None
        if own and self.classes is None:
            nameless, self.source = self.source, 'train_dataloader.dataset'
            self.classes = _classes_of_config(runner)
            if self.classes is None:
                self._compare_numbers(runner, own, key, nameless)
        if own and self.classes is not None:
            self._align(runner, dataset, key)
        _tell_classes(loop)

    def _compare_numbers(self, runner: Runner, own: tuple[str, ...], key: str, nameless: str) -> None:
        """Compare only the number of classes, as the checkpoint has no names."""
        outputs = _outputs(runner.model)
        if outputs not in (None, len(own)):
            raise UserError(
                f'{key} has {len(own)} classes ({listed(own)}), the head of the model {outputs}, and {nameless} does '
                'not say which: name them, train_dataloader.dataset.metainfo.classes=FILE with a name on each line, '
                'in the order of the training'
            )
        runner.logger.warning(f'{nameless} does not name its classes: those of {key} are used, in that order.')

    def _align(self, runner: Runner, dataset: object, key: str, fixed: str | None = None) -> None:
        for message in align_labels(dataset, key, self.classes or (), self.source, fixed):
            runner.logger.info(message)


def _heads(model: nn.Module) -> list[tuple[str, Any]]:
    """The parts of a model that predict classes, with their names."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if getattr(module, 'num_classes', None) and not isinstance(module, BaseDataPreprocessor)
    ]


def _outputs(model: nn.Module) -> int | None:
    """The number of classes of a classifier."""
    return next((head.num_classes for name, head in _heads(model) if name.split('.')[-1] == 'head'), None)


def _takes_head(model: nn.Module, weights: dict) -> bool:
    """Whether the weights of the class outputs in a checkpoint fit the model, so that they are loaded."""
    stored = {re.sub(r'^module\.', '', key): value for key, value in weights.items()}
    for name, head in _heads(model):
        for key, value in head.named_parameters(prefix=name):
            other = stored.get(re.sub(r'^(module\.)+', '', key))
            # A detector has one more output, for the background.
            if other is not None and value.shape == other.shape and value.shape[0] - head.num_classes in (0, 1):
                return True
    return False


def _classes_of_config(runner: Runner) -> tuple[str, ...] | None:
    """The class names of the training set of a config; None if they cannot be found."""
    loader = runner.cfg.get('train_dataloader')
    found = []
    try:
        for key, leaf in leaf_datasets(loader.dataset, 'train_dataloader.dataset'):
            dataset = DATASETS.build({**leaf, 'pipeline': [], 'lazy_init': True})
            known = names_of(dataset.metainfo.get('classes'), key)
            found.append(known or dataset_classes(dataset, key))
    # The machine of the test may not have the training data.
    except Exception:
        return None
    return max(filter(None, found), key=len, default=None)


def _tell_classes(loop: Any) -> None:
    """Pass the classes of the data set of a loop to its metrics and to the visualizer."""
    if hasattr(loop.dataloader.dataset, 'metainfo'):
        meta = loop.dataloader.dataset.metainfo
        loop.evaluator.dataset_meta = loop.runner.visualizer.dataset_meta = meta
