"""The configs inside the package, by the names that mmengine, mim and mmpretrain use."""

from pathlib import Path

#: The folder of an OpenMMLab package that holds its configs, tools and list of models.
MIM = Path(__file__).resolve().parents[1] / '.mim'


def name_packaged_configs() -> None:
    """Let ``_base_ = 'mmmap::...'``, ``mmengine.hub`` and ``mmpretrain.list_models`` find the configs of mmmap."""
    from mmengine.config.utils import MODULE2PACKAGE
    from mmpretrain.apis import ModelHub

    if 'mmmap' in MODULE2PACKAGE:
        return
    MODULE2PACKAGE['mmmap'] = 'mmmap'
    register_theirs = ModelHub._register_mmpretrain_models
    registered = False

    def register() -> None:
        # With mmpretrain's own, when a name is asked for first: the files take a tenth of a second to read.
        nonlocal registered
        register_theirs()
        if not registered:
            registered = True
            for folder in ('map', 'map/benchmarks'):
                ModelHub.register_model_index(MIM / 'configs' / folder / 'metafile.yml', config_prefix=MIM)

    ModelHub._register_mmpretrain_models = register
