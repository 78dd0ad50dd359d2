"""Which weights of a checkpoint fit a model: mmengine loads those that fit, and does not report that none do."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from .errors import UserError

_SHOWN = 3


def counted(load_state_dict: Callable, file_name: Callable[[], str | None]) -> Callable:
    """Wrap mmengine's ``load_state_dict``: it raises ``UserError`` if no weight fits, and logs which do not.

    Args:
        load_state_dict (Callable): mmengine's function of a module, weights, strict and logger.
        file_name (Callable[[], str | None]): Gives the file that was read last, for messages.
    """

    @wraps(load_state_dict)
    def load(module: nn.Module, state_dict: Mapping, strict: bool = False, logger: Any = None) -> None:
        # Names do not tell what is loaded, as a model may rename keys. The version of a tensor rises with each copy.
        before = {name: (tensor, tensor._version) for name, tensor in _tensors(module)}
        load_state_dict(module, state_dict, strict, logger)
        new = [
            name
            for name, tensor in _tensors(module)
            if name in before and (tensor is before[name][0] and tensor._version == before[name][1])
        ]
        source = file_name() or 'the checkpoint'
        if before and len(new) == len(before):
            raise UserError(_nothing_fits(module, state_dict, source, {name: t for name, (t, _) in before.items()}))
        if new:
            names = ', '.join(new[:_SHOWN]) + (f' and {len(new) - _SHOWN} more' if len(new) > _SHOWN else '')
            print_log(
                f'{len(before) - len(new)} of {len(before)} weights of {type(module).__name__} are from {source}; '
                f'these keep their initial values: {names}',
                logger='current',
            )

    return load


def shorten_keys(message: str) -> str:
    """Make one line of the message of a failed strict loading, with the first keys of each of its lines."""
    lines = []
    for line in filter(None, map(str.strip, message.splitlines())):
        keys = line.split(', ')
        more = f' and {len(keys) - _SHOWN} more' if len(keys) > _SHOWN else ''
        lines.append(', '.join(keys[:_SHOWN]) + more)
    return ' '.join(lines)


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    # torch sets some buffers by itself, such as the counts of batch norm.
    return list(module.named_parameters()) or list(module.named_buffers())


def _nothing_fits(module: nn.Module, state_dict: Mapping, source: str, own: Mapping[str, Tensor]) -> str:
    given = [str(key) for key, value in state_dict.items() if isinstance(value, Tensor)]
    said = f'{source}: none of its {len(given)} weights fits {type(module).__name__}'
    if not given:
        return f'{said}; it holds {", ".join(map(repr, list(state_dict)[:_SHOWN])) or "nothing"}'
    for name in own:
        if name in state_dict:
            shapes = [tuple(tensors[name].shape) for tensors in (state_dict, own)]
            return f'{said}: {name} has the shape {shapes[0]}, in the model {shapes[1]}'
    said += f'; its names are like {given[0]!r}, those of the model like {next(iter(own))!r}'
    for key in given:
        for name in own:
            if key.endswith(f'.{name}'):
                return f"{said}: load it with init_cfg=dict(type='Pretrained', ..., prefix={key.removesuffix(name)!r})"
            if name.endswith(f'.{key}'):
                part = name.removesuffix(f'.{key}')
                return f"{said}: give it to the model's part {part!r}, by init_cfg=dict(type='Pretrained', ...) of it"
    return said
