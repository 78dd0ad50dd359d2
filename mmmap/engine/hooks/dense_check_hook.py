"""A hook that checks a detector or segmentor and its data before the first iteration."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmap.registry import HOOKS

from ...utils.errors import UserError
from .. import dense_checks
from ..dense_checks.dense_runs import dense_model, loops
from ..dense_checks.loading import explain_faults
from ..sample_errors import name_faulty_samples


@HOOKS.register_module()
class DenseCheckHook(Hook):
    """Refuse a detector or segmentor that would train on wrong geometry, wrong classes or wrong data.

    The checks run when the model and the data sets are built, before the first iteration of a training, validation or
    test. A fault ends the run with one line that names the key of the config and the right value. What may be on
    purpose is a warning in the log. Later, a sample that cannot be used ends the run with the names of its files. A run
    without a fault computes the same with and without this hook. Other models are not checked.

    The runtimes of mmmap for segmentation and detection have this hook, and the tools add it. In any other config of
    mmsegmentation or mmdetection it is one line: ``custom_hooks = [dict(type='mmmap.DenseCheckHook')]``.

    Args:
        only_warn (bool): Whether a fault is only a warning, for those who know better. Defaults to False.
    """

    # Before the hooks that train or draw; it runs once, before all of `before_train`.
    priority = 'VERY_HIGH'

    def __init__(self, only_warn: bool = False) -> None:
        self.only_warn = only_warn
        self._checked: set[int] = set()
        # The Runner builds the data sets before it calls a hook.
        explain_faults()

    def before_run(self, runner: Runner) -> None:
        """Check a run of the Runner, of which all loops are built.

        Raises:
            UserError: If a check finds a fault.
        """
        self._check(runner)

    def before_train(self, runner: Runner) -> None:
        """Check a training that was started without the Runner's own method, as :meth:`before_run` does."""
        self._check(runner)

    def before_val(self, runner: Runner) -> None:
        """Check a validation that was started without the Runner's own method, as :meth:`before_run` does."""
        self._check(runner)

    def before_test(self, runner: Runner) -> None:
        """Check a test that was started without the Runner's own method, as :meth:`before_run` does."""
        self._check(runner)

    def _check(self, runner: Runner) -> None:
        # Of several such hooks the last checks, that of the user's config. Each loop is checked once.
        if [hook for hook in runner.hooks if isinstance(hook, DenseCheckHook)][-1] is not self:
            return
        new = {id(loop) for _, loop in loops(runner)} - self._checked
        if not new or dense_model(runner) is None:
            return
        self._checked |= new
        name_faulty_samples(runner.cfg)
        for check in dense_checks.CHECKS:
            try:
                check(runner)
            except UserError as error:
                if not self.only_warn:
                    raise
                runner.logger.warning(f'DenseCheckHook: {error}')
