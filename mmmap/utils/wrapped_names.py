"""Names of parameters without those of wrappers."""

import re

# FSDP, torch.compile and activation checkpointing add these to the names of wrapped modules.
_WRAPPERS = re.compile(r'(?<![^.])(_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.')


def without_wrappers(name: str) -> str:
    """A dotted name as it is without wrappers."""
    return _WRAPPERS.sub('', name)
