"""A hook that makes a resumed run equal to an uninterrupted one."""

from collections.abc import Sequence

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.runner import Runner

from mmmap.registry import HOOKS

from ..accumulation import average_gradients, batches_since_step, read_gradients, restore_counts, write_gradients
from ..keyed_random import EndlessBatches, KeyedBatches, make_reproducible, seed_everything
from ..resume import ResumePlan
from ..run_settings import infer_place, read_settings, set_order_seeds
from ..runner_parts import optimizers_of
from ..schedules import plain_setting

# Attributes of EarlyStoppingHook that mmengine's checkpoints do not hold.
_COUNTED = ('best_score', 'wait_count')


class _DueEvaluation(Hook):
    """Evaluates before the training, after all other hooks are set up."""

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        runner.logger.info('The evaluation that was due at this checkpoint comes first.')
        runner.val_loop.run()


@HOOKS.register_module()
class ResumeHook(Hook):
    """Lets a run continue from any of its checkpoints as if it had never stopped, bit for bit on a CPU.

    Random numbers of samples and steps depend on the seed, the rank and the place in the training
    (:mod:`~mmmap.engine.keyed_random`). So they do not depend on the number of workers, and epochs differ in their
    augmentation. A checkpoint may be written between any two iterations: the run continues with the next batch of the
    epoch. If the checkpoint was written before an evaluation at the same point, the run starts with that evaluation.
    Changed settings are told and used (:class:`~mmmap.engine.resume.ResumePlan`).

    Code that writes a checkpoint sets mmengine's ``meta``: ``epoch``, the whole epochs done, and ``iter``, the
    iterations done. In ``after_train_iter`` these are ``epoch=runner.epoch, iter=runner.iter + 1``, during an
    evaluation ``epoch=runner.epoch, iter=runner.iter``. If several ranks accumulate gradients, all of them call
    :meth:`share_gradients` before a checkpoint in ``after_train_iter``.
    """

    # It runs before hooks that draw random numbers or write checkpoints.
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._settings: dict | None = None
        self._resumed: ResumePlan | None = None
        self._batches: KeyedBatches | None = None
        # The pass through the data to start in, and its batches that are done. Then the same of the current point.
        self._start = (0, 0)
        self._epoch, self._batch = -1, 0
        self._evaluated_at = self._shared_at = -1

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare a checkpoint's settings with the current ones, before its states are loaded. Changes it in place.

        Raises:
            UserError: If this training cannot continue from it.
        """
        self._drop_others(runner)
        # mmengine has no public attribute for it.
        if not runner._resume:
            return
        self._resumed = ResumePlan(runner, checkpoint)
        self._settings = self._resumed.now
        for line in self._resumed.lines:
            runner.logger.info(line)

    def before_train(self, runner: Runner) -> None:
        """Go to the place in the data, restore gradients, and register an evaluation that is due."""
        self._drop_others(runner)
        loop, loader, resumed = runner.train_loop, runner.train_dataloader, self._resumed
        self._batches = make_reproducible(loader, runner.seed)
        settings = self._settings = read_settings(runner) if resumed is None else resumed.now
        self._start = (resumed and resumed.place) or infer_place(settings, loop.epoch, loop.iter, loader)
        if resumed is None:
            # A new run, or one that DeepSpeed has resumed: it calls no hook then.
            if loop.iter:
                runner.logger.info('The settings of the checkpoint are not known: schedules go on as they were.')
        else:
            set_order_seeds(loader, settings['order_seeds'])
            self._restore_gradients(runner, resumed)
            for hook in _early_stops(runner):
                vars(hook).update(resumed.was.get('early_stops', {}).get(hook.monitor, {}))
            if resumed.evaluation_is_due():
                runner.register_hook(_DueEvaluation())
        if self._batches is None:
            kind = type(getattr(loader, 'dataset', loader)).__name__
            runner.logger.info(
                f'train_dataloader: a resumed run reads a {kind} from its start, as its place there is not known.'
            )
            return
        if self._start[1]:
            runner.logger.info(f'Goes on with batch {self._start[1] + 1} of pass {self._start[0] + 1} of the data.')
        if hasattr(loop, 'dataloader_iterator'):
            # Before mmengine 0.10.8 the loop skips batches by reading them.
            ignored = 0 if hasattr(loop.dataloader_iterator, 'skip_iter') else loop.iter
            loop.dataloader_iterator = EndlessBatches(loader, *self._start, ignored)

    def before_train_epoch(self, runner: Runner) -> None:
        """Skip the batches of the epoch that are done."""
        loop = runner.train_loop
        if self._batches is None or hasattr(loop, 'dataloader_iterator'):
            return
        start = self._start[1] if self._start[0] == runner.epoch else 0
        self._epoch = self._batches.epoch = runner.epoch
        self._batch = self._batches.start = start
        if start:
            # The loop counts from the first batch that it reads. Hooks and the log need the place in the epoch.
            run_iter = loop.run_iter
            loop.run_iter = lambda index, data_batch: run_iter(index + start, data_batch)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | Sequence | None = None) -> None:
        """Seed the random numbers of this step."""
        self._batch = batch_idx + 1
        seed_everything('step', runner.seed, get_rank(), runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | Sequence | None = None, outputs: dict | None = None
    ) -> None:
        """Share gradients if a checkpoint follows."""
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        if any(self.every_n_train_iters(runner, hook.interval, hook.save_begin) for hook in hooks):
            self.share_gradients(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Let the next epoch start at its first batch. Share gradients, as a checkpoint may follow."""
        if self._batches is not None:
            self._batches.start = 0
        runner.train_loop.__dict__.pop('run_iter', None)
        self.share_gradients(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Make the evaluation independent of when it runs."""
        make_reproducible(getattr(runner.val_loop, 'dataloader', None), runner.seed)
        seed_everything('val', runner.seed, get_rank())

    def before_test_epoch(self, runner: Runner) -> None:
        """Make the test independent of the number of workers."""
        make_reproducible(getattr(runner.test_loop, 'dataloader', None), runner.seed)
        seed_everything('test', runner.seed, get_rank())

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Record the iteration of the evaluation."""
        if self._settings is not None:
            self._evaluated_at = runner.iter

    def share_gradients(self, runner: Runner) -> None:
        """Average the gradients accumulated since the last step over ranks, for a checkpoint. All ranks call it."""
        if batches_since_step(runner) and average_gradients(runner):
            self._shared_at = runner.iter

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the settings of the run, its place in the data and accumulated gradients."""
        if self._settings is None:
            return
        meta, loop = checkpoint['meta'], runner.train_loop
        if isinstance(getattr(loop, 'dataloader_iterator', None), EndlessBatches):
            place = [loop.dataloader_iterator.epoch, loop.dataloader_iterator.batch]
        else:
            place = [meta['epoch'], self._batch if meta['epoch'] == self._epoch else 0]
        counts = {name: getattr(one, 'inner_count', 0) for name, one in optimizers_of(runner).items()}
        evaluated = self._evaluated_at == meta['iter']
        stops = {
            hook.monitor: {name: plain_setting(getattr(hook, name)) for name in _COUNTED}
            for hook in _early_stops(runner)
        }
        meta['run'] = {**self._settings, 'place': place, 'evaluated': evaluated, 'counts': counts, 'early_stops': stops}
        if batches_since_step(runner) and (get_world_size() == 1 or self._shared_at == runner.iter):
            checkpoint['gradients'] = read_gradients(runner)

    def _drop_others(self, runner: Runner) -> None:
        """Remove other hooks of this class: a user's config may add one that the base config has."""
        for hook in [hook for hook in runner.hooks if isinstance(hook, ResumeHook) and hook is not self]:
            runner.hooks.remove(hook)

    @staticmethod
    def _restore_gradients(runner: Runner, resumed: ResumePlan) -> None:
        restore_counts(runner, resumed.was.get('counts', {}))
        if not batches_since_step(runner):
            return
        if resumed.gradients:
            write_gradients(runner, resumed.gradients)
            runner.logger.info('Gradients of the batches since the last step are restored from the checkpoint.')
        else:
            runner.logger.info(f'Gradients of {batches_since_step(runner)} batches since the last step are lost.')


def _early_stops(runner: Runner) -> list[EarlyStoppingHook]:
    return [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]
