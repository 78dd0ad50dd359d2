"""The models of the classifier configs run, what is not frozen learns, and their sizes fit each other."""

import pytest
import torch
import yaml
from config_cases import CLASSIFIERS, ROOT, build_on_meta, shorten

EVERY = pytest.mark.parametrize('cfg', CLASSIFIERS, ids=lambda path: path.stem, indirect=True)


@EVERY
def test_model_classifies(cfg):
    model = build_on_meta(shorten(cfg))
    size, backbone = cfg.model.backbone.img_size, model.backbone
    assert backbone.pos_embed.weight.shape[1:3] == (size // backbone.patch_size,) * 2
    logits = model(torch.empty(2, 3, size, size, device='meta'), mode='tensor')
    assert logits.shape == (2, model.head.num_classes)
    logits.sum().backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()


@EVERY
def test_labels_of_the_data_are_those_of_the_head(cfg):
    preprocessor = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
    assert preprocessor.num_classes == cfg.model.head.num_classes
    labels = torch.zeros(2, dtype=torch.long)
    if cfg.model.get('train_cfg'):
        # Mixed labels come as one row of weights an image.
        labels = torch.nn.functional.one_hot(labels, preprocessor.num_classes).float()
    loss = build_on_meta(cfg).head.loss_module(torch.zeros(2, preprocessor.num_classes), labels)
    assert loss.item() == pytest.approx(torch.log(torch.tensor(float(preprocessor.num_classes))).item(), rel=1e-4)


@EVERY
def test_linear_probes_train_the_head_alone(cfg):
    trained = {name.split('.')[0] for name, p in build_on_meta(cfg).named_parameters() if p.requires_grad}
    assert (trained == {'head'}) == ('linear' in cfg.filename)


def test_metafile_lists_the_recipes_for_imagenet():
    models = yaml.safe_load((ROOT / 'configs/map/benchmarks/metafile.yml').read_text())['Models']
    recipes = {
        str(path.relative_to(ROOT)) for path in CLASSIFIERS if path.parent.name == 'benchmarks' and '_in1k' in path.stem
    }
    assert {entry['Config'] for entry in models} == recipes
