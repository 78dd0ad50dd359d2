"""A hook that refuses a checkpoint of another model."""

import re

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from mmmap.registry import HOOKS

from ..errors import UserError


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Raise when a checkpoint does not fit the model it is loaded into.

    mmengine loads what fits and only warns of the rest, which is right for fine-tuning and wrong for resuming and
    testing: the tools register this hook for these two. Weights that the model adapts by itself on loading (a position
    embedding of another size) fit; so do weights of a part that the model does not have at all.

    Args:
        filename (str): The checkpoint, for the message.
    """

    # Before hooks that would read the checkpoint, after EMAHook (NORMAL), which swaps its weights in.
    priority = 'LOW'

    def __init__(self, filename: str) -> None:
        self.filename = filename

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Try the weights on the model.

        Args:
            runner (Runner): Holds the model.
            checkpoint (dict): What the file holds.

        Raises:
            UserError: If a weight of the model is missing or of another shape, or one is left over.
        """
        model = runner.model
        # Around the model itself: of a distributed run, of test-time augmentation, or both.
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            if isinstance(model, FullyShardedDataParallel):
                # The model inside has pieces of the weights; the wrapper takes whole ones.
                break
            model = model.module
        weights = checkpoint.get('state_dict', checkpoint)
        weights = {re.sub(r'^module\.', '', name): value for name, value in weights.items()}
        try:
            missing, unexpected = model.load_state_dict(weights, strict=False)
        # torch raises RuntimeError with a line a weight; a model that checks by itself raises ValueError.
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
