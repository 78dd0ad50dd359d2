"""Checks checkpoints of DeepSpeed and sharded FSDP, which are folders with a part from each process."""

import re
import zipfile
from collections import defaultdict
from pathlib import Path

from ..utils.errors import RefusedFileError, UserError
from ..utils.file_damage import first_damage
from ..utils.safe_load import load

# FSDP: rank3.pth. DeepSpeed: mp_rank_00_model_states.pt, layer_02-model_00-model_states.pt, and
# zero_pp_rank_3_mp_rank_00_optim_states.pt, maybe after a dtype. The process is the number of rank3 and zero_pp_rank_3.
_PART = re.compile(r'(?:rank(?P<fsdp>\d+)\.pth|(?P<zero>.*zero_pp_rank_)(?P<dp>\d+)_mp_rank_\d+_\w+\.pt|\w[\w-]*\.pt)')


def folder_damage(folder: str | Path) -> str | None:
    """Say in a few words which part of a checkpoint in a local folder is missing or damaged; None if none is."""
    matches = {path: match for path in sorted(Path(folder).iterdir()) if (match := _PART.fullmatch(path.name))}
    parts = list(matches)
    if not parts:
        return 'is a folder without parts of a checkpoint'
    ranks: dict[str, set[int]] = defaultdict(set)
    for path, match in matches.items():
        if match['fsdp'] or match['dp']:
            # Each process writes one file of each kind.
            ranks[re.sub(r'(pp_rank_|^rank)\d+', r'\1', path.name)].add(int(match['fsdp'] or match['dp']))
    models = [path for path in parts if path.name.endswith('_model_states.pt')]
    if any('optim_states' in kind for kind in ranks) and not models:
        return 'lacks mp_rank_00_model_states.pt'
    for path in parts:
        damage = first_damage(path)
        if damage is not None:
            return f'{damage}, in its part {path.name}'
    try:
        # DeepSpeed stores the number of processes; FSDP does not.
        noted = load(models[0], 'cpu', mmap=zipfile.is_zipfile(models[0]))['dp_world_size'] if models else 0
    except RefusedFileError:
        noted = 0  # Loading it will report that.
    except (UserError, KeyError, TypeError) as error:
        return f'is damaged ({error}), in its part {models[0].name}'
    count = max([noted, *(max(found) + 1 for found in ranks.values())], default=0)
    for kind, found in ranks.items():
        missing = sorted(set(range(count)) - found)
        if missing:
            return f'lacks the part of process {missing[0]} of {count} ({kind})'
    return None
