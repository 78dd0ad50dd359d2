"""Helpers that belong to no part of the toolbox: compatibility with the environment, version checks."""


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register all components of mmmap and of what it stands on, as every OpenMMLab package offers it.

    Args:
        init_default_scope (bool): Make mmpretrain's the default scope where none is set: bare type names of
            mmpretrain and mmmap are found in it. Defaults to True.
    """
    import mmpretrain.utils
    from mmengine.registry import DefaultScope

    import mmmap.registry  # noqa: F401 - registers all components

    mmpretrain.utils.register_all_modules(init_default_scope and DefaultScope.get_current_instance() is None)
