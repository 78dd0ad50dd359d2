"""Helpers that belong to no part of the toolbox: compatibility with the environment, version checks."""

import warnings


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register all components of mmmap and of what it stands on, as every OpenMMLab package offers it.

    Args:
        init_default_scope (bool): Make mmpretrain's the default scope, in which bare type names of mmpretrain and
            mmmap are found. Defaults to True.
    """
    import mmpretrain.utils

    import mmmap.registry  # noqa: F401 - registers all components

    with warnings.catch_warnings():
        # mmengine.hub sets the scope of the package. Configs of mmmap are of mmpretrain's.
        warnings.filterwarnings('ignore', 'The current default scope "mmmap"')
        mmpretrain.utils.register_all_modules(init_default_scope)
