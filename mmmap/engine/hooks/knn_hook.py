"""Measures during pretraining how well the features tell classes apart."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmmap.evaluation import extract_features, knn_accuracy
from mmmap.registry import HOOKS


@HOOKS.register_module()
class KNNHook(Hook):
    """Every few epochs, and once before the first, the kNN accuracy of the backbone's features.

    The scalar ``knn/accuracy`` (percent, over epochs) goes to the log and the visualizer.

    Args:
        bank_dataloader (dict): Labelled images that vote.
        query_dataloader (dict): Labelled images to classify.
        interval (int): Epochs between two measurements; the last epoch has one too. Defaults to 10.
        k (int): Neighbours. Defaults to 20.
    """

    priority = 'LOW'

    def __init__(self, bank_dataloader: dict, query_dataloader: dict, interval: int = 10, k: int = 20) -> None:
        if interval < 1 or k < 1:
            raise ValueError(f'interval={interval}, k={k}: both must be positive')
        self.bank_dataloader = bank_dataloader
        self.query_dataloader = query_dataloader
        self.interval = interval
        self.k = k

    def before_train(self, runner: Runner) -> None:
        """Build the loaders; measure the untrained backbone."""
        self._bank = runner.build_dataloader(self.bank_dataloader)
        self._query = runner.build_dataloader(self.query_dataloader)
        if runner.iter == 0:
            self._measure(runner, 0)

    def after_train_epoch(self, runner: Runner) -> None:
        """Measure when due."""
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            self._measure(runner, runner.epoch + 1)

    def _measure(self, runner: Runner, epoch: int) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        bank, query = extract_features(model, self._bank), extract_features(model, self._query)
        if bank is None or query is None:
            return
        accuracy = knn_accuracy(*bank, *query, k=self.k, device=next(model.parameters()).device)
        runner.visualizer.add_scalar('knn/accuracy', accuracy, step=epoch)
        runner.logger.info(f'Epoch {epoch}: kNN accuracy {accuracy:.2f} % (k = {self.k}, {len(query[0])} queries)')
