"""Names of parameters without what wrappers put into them."""

import re

# What FSDP, torch.compile and activation checkpointing put in front of the names of what they wrap.
_WRAPPERS = re.compile(r'(?<![^.])(_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.')


def without_wrappers(name: str) -> str:
    """A dotted name as it is where nothing is wrapped."""
    return _WRAPPERS.sub('', name)
