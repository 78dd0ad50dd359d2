"""How the parameters of the released code get our names."""

import re
from collections.abc import Callable, Collection

import torch
from torch import Tensor

#: Patterns of released names, and our name for each. ``<LIST i>`` stands for our block that is block i of a released
#: list; ``[0]`` and ``[1]`` are the directions of a parameter that holds both.
Rules = list[tuple[str, str]]


def count_blocks(names: Collection[str], module_list: str) -> int:
    """The number of blocks in a released list, such as 'layers', by the names of all parameters.

    Raises:
        ValueError: If one between them is missing.
    """
    found = {int(m[1]) for name in names if (m := re.match(rf'{re.escape(module_list)}\.(\d+)\.', name))}
    if found != set(range(len(found))):
        raise ValueError(f'{module_list}.*: indices {sorted(found)} are not consecutive')
    return len(found)


def find_layout(names: Collection[str], mamba_list: str, transformer_list: str) -> str:
    """The order of the released blocks, one letter a block.

    A Transformer block is behind every third Mamba block, as long as there are any. The two lists of blocks are given
    by their names.

    Raises:
        ValueError: If a block is missing, or there are more Transformer blocks than places for them.
    """
    num_mamba, num_transformer = (count_blocks(names, blocks) for blocks in (mamba_list, transformer_list))
    if num_transformer > num_mamba // 3:
        raise ValueError(f'blocks.*: {num_transformer} Transformer blocks behind {num_mamba} Mamba layers')
    return ''.join('MMMT'[: 3 + (i < num_transformer)] for i in range(num_mamba // 3)) + 'M' * (num_mamba % 3)


def rename(
    state_dict: dict[str, Tensor],
    rules: Rules,
    ignored: Rules,
    lists: tuple[str, str],
    convert: Callable[[str, str, Tensor], dict[str, Tensor]],
    code: str,
    prefix: str = '',
) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Give the parameters of a released model our names.

    Args:
        state_dict (dict[str, Tensor]): The released parameters by name.
        rules (Rules): Names to convert.
        ignored (Rules): Names to leave out.
        lists (tuple[str, str]): Names of the released lists of Mamba and Transformer blocks.
        convert (Callable): Gives our parameters, by name, for a released name, our name and the value.
        code (str): What the released code is called, for the error.
        prefix (str): Removed from the released names that have it. Defaults to ''.

    Returns:
        tuple: Our state dict, our name for each released name, and the released names that were left out.

    Raises:
        ValueError: If a name matches no rule; the message lists all such names.
    """
    layout = find_layout([key.removeprefix(prefix) for key in state_dict], *lists)
    blocks = {
        f'<{name} {number}>': f'backbone.encoder.blocks.{place}'
        for name, letter in zip(lists, 'MT', strict=True)
        for number, place in enumerate(i for i, other in enumerate(layout) if other == letter)
    }
    converted: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    left_out: list[str] = []
    unknown: list[str] = []
    for key, value in state_dict.items():
        name = key.removeprefix(prefix)
        ours = next((match.expand(ours) for rule, ours in rules if (match := re.fullmatch(rule, name))), None)
        if ours is not None:
            names[key] = re.sub('<.*>', lambda m: blocks[m[0]], ours)
            converted |= convert(name, names[key], value)
        else:
            (left_out if any(re.fullmatch(rule, name) for rule, _ in ignored) else unknown).append(key)
    if unknown:
        raise ValueError(f'{len(unknown)} key(s) are not known to be of the released {code} code: {", ".join(unknown)}')
    return _join_directions(converted), names, left_out


def _join_directions(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stack ``name[0]`` and ``name[1]`` as ``name``."""
    joined = {}
    for key, value in parts.items():
        if not key.endswith(('[0]', '[1]')):
            joined[key] = value
            continue
        name = key[:-3]
        first, second = parts.get(f'{name}[0]'), parts.get(f'{name}[1]')
        if first is None or second is None or first.shape != second.shape:
            shapes = (f'{i} {"missing" if x is None else tuple(x.shape)}' for i, x in (('[0]', first), ('[1]', second)))
            raise ValueError(f'the two directions of a mixer do not fit: {", ".join(name + s for s in shapes)}')
        joined[name] = torch.stack([first, second])
    return joined
