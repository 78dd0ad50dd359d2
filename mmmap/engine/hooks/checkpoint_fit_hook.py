"""A hook that refuses a checkpoint of another model."""

import re

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from mmmap.registry import HOOKS

from ...utils.errors import UserError


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Raise if a checkpoint does not fit the model.

    mmengine loads the weights that fit and only warns about the rest. That is right for fine-tuning, but wrong for
    resuming and testing, for which the tools register this hook. Weights that the model adapts on loading, such as a
    position embedding of another size, fit. Weights of a part that the model does not have are ignored.

    Args:
        filename (str): The checkpoint, for the message.
    """

    # Runs before hooks that read the checkpoint, and after EMAHook (NORMAL), which swaps its weights in.
    priority = 'LOW'

    def __init__(self, filename: str) -> None:
        self.filename = filename

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load the weights strictly.

        Raises:
            UserError: If a weight is missing, has another shape or is not in the model.
        """
        model = runner.model
        # Wrappers of a distributed run and of test-time augmentation.
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            if isinstance(model, FullyShardedDataParallel):
                # The wrapper takes whole weights; the model inside has shards.
                break
            model = model.module
        weights = checkpoint.get('state_dict', checkpoint)
        weights = {re.sub(r'^module\.', '', name): value for name, value in weights.items()}
        try:
            missing, unexpected = model.load_state_dict(weights, strict=False)
        # torch raises RuntimeError with a line per weight; a model with its own check raises ValueError.
        except (RuntimeError, ValueError) as error:
            mismatch = [line.strip() for line in str(error).splitlines() if 'size mismatch' in line]
            raise UserError(self._message(mismatch[0] if mismatch else str(error), len(mismatch))) from error
        if isinstance(model, FullyShardedDataParallel):
            model = model.module
        buffers = {name.replace('_fsdp_wrapped_module.', '') for name, _ in model.named_buffers()}
        missing = [name for name in missing if name not in buffers]
        parts = {name for name, _ in model.named_children()}
        unexpected = [name for name in unexpected if name.split('.')[0] in parts]
        if missing:
            raise UserError(self._message(f'the checkpoint has no {missing[0]}', len(missing)))
        if unexpected:
            raise UserError(self._message(f'the model has no {unexpected[0]}', len(unexpected)))

    def _message(self, first: str, count: int) -> str:
        more = f' (and {count - 1} more)' if count > 1 else ''
        return f'{self.filename} is a checkpoint of another model: {first}{more}'
