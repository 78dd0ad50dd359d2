"""A hook that measures the kNN accuracy of the features during pretraining."""

from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner

from mmmap.evaluation import extract_share, gather_shares, knn_accuracy
from mmmap.registry import HOOKS

from ..class_labels import align_query
from ..data_loaders import build_loader
from ..runner_parts import unwrapped_model
from .preemption_hook import PreemptionHook
from .side_product_hook import SideProductHook

Features = tuple[np.ndarray, np.ndarray]


@HOOKS.register_module()
class KNNHook(SideProductHook):
    """Measure the kNN accuracy of the backbone's features every few epochs, and before the first.

    The scalar ``knn/accuracy`` (percent, over epochs) goes to the log and the visualizer. It is measured after the
    checkpoint of the epoch. An error on any process is logged, and there is no accuracy then. Classes are compared by
    name: if the query set lacks some or has another order, its labels are mapped to those of the bank.

    Args:
        bank_dataloader (dict): Labelled images that vote.
        query_dataloader (dict): Labelled images to classify.
        interval (int): Epochs between two measurements; the last epoch is always measured. Defaults to 10.
        k (int): The number of neighbours. Defaults to 20.

    Raises:
        ValueError: If ``interval`` or ``k`` is not positive.
    """

    def __init__(self, bank_dataloader: dict, query_dataloader: dict, interval: int = 10, k: int = 20) -> None:
        if interval < 1 or k < 1:
            raise ValueError(f'interval={interval}, k={k}: both must be positive')
        self.bank_dataloader = bank_dataloader
        self.query_dataloader = query_dataloader
        self.interval = interval
        self.k = k

    def before_train(self, runner: Runner) -> None:
        """Build the data loaders, and measure the untrained backbone.

        Raises:
            ValueError: If the bank has fewer than k images.
            UserError: If images have no label or several, or the classes do not fit.
        """
        self._bank = build_loader(runner, self.bank_dataloader)
        self._query = build_loader(runner, self.query_dataloader)
        bank: Any = self._bank.dataset
        if self.k > len(bank):
            raise ValueError(f'k={self.k} is more than the {len(bank)} images of bank_dataloader')
        keys = [f'KNNHook.{name}_dataloader.dataset' for name in ('bank', 'query')]
        for message in align_query(bank, keys[0], self._query.dataset, keys[1]):
            runner.logger.info(message)
        if runner.iter == 0:
            self._measure(runner, 0)

    def after_train_epoch(self, runner: Runner) -> None:
        """Measure when due."""
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            self._measure(runner, runner.epoch + 1)

    def _measure(self, runner: Runner, epoch: int) -> None:
        model = unwrapped_model(runner)
        preemption = next((hook for hook in runner.hooks if isinstance(hook, PreemptionHook)), None)
        # Ends the measurement if the run is asked to stop.
        batches = iter if preemption is None else preemption.until_asked_to_stop
        # Gathering waits for all processes, so that it starts only if all have their share.
        shares = self.attempt_together(
            lambda: [extract_share(model, batches(part)) for part in (self._bank, self._query)]
        )
        if shares is None:
            return
        bank, query = (gather_shares(*part) for part in zip(shares, (self._bank, self._query), strict=True))
        if bank is not None and query is not None:
            self.attempt(self._log, runner, epoch, bank, query, next(model.parameters()).device)

    def _log(self, runner: Runner, epoch: int, bank: Features, query: Features, device: torch.device) -> None:
        accuracy = knn_accuracy(*bank, *query, k=self.k, device=device)
        runner.visualizer.add_scalar('knn/accuracy', accuracy, step=epoch)
        runner.logger.info(f'Epoch {epoch}: kNN accuracy {accuracy:.2f} % (k = {self.k}, {len(query[0])} queries)')
