"""The models of the pretraining configs run, all of their parameters learn, and their sizes fit each other."""

import pytest
import torch
import yaml
from config_cases import PRETRAINING, ROOT, build_on_meta, read, shorten

from mmmap.models.selfsup.token_pretraining import TokenPretraining

EVERY = pytest.mark.parametrize('cfg', PRETRAINING, ids=lambda path: path.stem, indirect=True)


@EVERY
def test_model_pretrains(cfg):
    model = build_on_meta(shorten(cfg))
    size = cfg.model.backbone.img_size
    inputs = torch.empty(2, 3, size, size, device='meta')
    if isinstance(model, TokenPretraining):
        reconstruction = model.reconstruct(inputs)
        assert reconstruction.pred.shape == (2, (size // model.backbone.patch_size) ** 2, model.head.proj.out_features)
        # The stored positions are those of this size: nothing is resized at each step.
        for part in (model.backbone, model.neck):
            if getattr(part, 'pos_embed', None) is not None:
                assert part.pos_embed.weight.shape[1:3] == reconstruction.grid
        loss = reconstruction.loss()
    else:
        # Contrastive methods take two views.
        # A count that is looked at, hence not on the meta device.
        model.momentum_encoder.steps = torch.tensor(0)
        loss = model.loss([inputs, inputs], [])['loss']
    loss.backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()


def test_front_door_is_the_base_recipe():
    front = read(ROOT / 'configs/map/vit-mamba_in1k.py')
    assert front.model.backbone.arch == 'base'
    assert front.train_cfg.max_epochs == 1600
    assert front.model.masking == dict(type='RandomMasking', ratio=0.5)


def test_metafile_lists_the_recipes_for_imagenet():
    models = yaml.safe_load((ROOT / 'configs/map/metafile.yml').read_text())['Models']
    recipes = {
        str(path.relative_to(ROOT))
        for path in PRETRAINING
        if path.parent.name == 'map' and path.stem.endswith('1600e_in1k')
    }
    assert {entry['Config'] for entry in models} == recipes
