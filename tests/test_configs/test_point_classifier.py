"""What a whole classifier of clouds, as configs/_base_ has it, may not depend on."""

import pytest
import torch
from config_cases import ROOT
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmmap.registry import MODELS

CLASSES = 40


def build(**backbone):
    """The classifier of the configs; its head spreads the logits, which else would differ by less than a hundredth."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/point-classifier_hybrid-small.py')
    cfg.model.head.num_classes = CLASSES
    cfg.model.backbone.update(backbone)
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    for weight in model.head.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=2 / weight.shape[1] ** 0.5)
    return model


@pytest.fixture(scope='module')
def model():
    return build()


@pytest.fixture
def clouds():
    """Four clouds that differ in their shape."""
    scale = torch.tensor([[1.0, 1, 1], [1, 0.2, 0.2], [1, 1, 0.05], [0.3, 0.8, 1]])
    points = torch.randn(4, 1024, 3, generator=torch.Generator().manual_seed(0)) * scale[:, None]
    return points / points.norm(dim=-1).amax(1)[:, None, None]


def permuted(clouds, first):
    """Each cloud in an order of its own, behind its first ``first`` points, which stay."""
    rng = torch.Generator().manual_seed(1)
    orders = [torch.randperm(clouds.shape[1] - first, generator=rng) + first for _ in clouds]
    return torch.stack(
        [cloud[torch.cat([torch.arange(first), order])] for cloud, order in zip(clouds, orders, strict=True)]
    )


def logits_of(model, clouds):
    with torch.no_grad():
        return model(clouds, mode='tensor')


def apart(logits, others):
    """The largest difference, as a share of the largest logit: float32 has 1e-7 of it."""
    return (logits - others).abs().max() / others.abs().max()


def test_the_order_of_the_points_changes_no_logit(model, clouds):
    logits = logits_of(model, clouds)
    assert logits.shape == (4, CLASSES) and logits.std(0).mean() > 0.3
    # With the same first point, and with another: the first centre is the same point wherever it stands.
    for first in (1, 0):
        shuffled = permuted(clouds, first)
        assert not torch.equal(shuffled, clouds)
        assert apart(logits_of(model, shuffled), logits) < 2e-6


def test_the_first_point_is_the_first_centre_of_the_released_model(clouds):
    model = build(released='v4', out_type='cls_max_mean')
    logits = logits_of(model, clouds)
    assert apart(logits_of(model, permuted(clouds, 1)), logits) < 2e-6
    assert (logits_of(model, permuted(clouds, 0)) - logits).abs().max() > 1e-3


@pytest.mark.parametrize('out_type', ['max_mean', 'cls_max_mean'])
def test_the_other_clouds_of_a_batch_change_no_prediction(clouds, out_type):
    model = build(out_type=out_type)
    together = model.test_step(dict(inputs=list(clouds)))
    logits = logits_of(model, clouds)
    for i, cloud in enumerate(clouds):
        (alone,) = model.test_step(dict(inputs=[cloud]))
        assert apart(logits_of(model, cloud[None])[0], logits[i]) < 2e-6
        torch.testing.assert_close(alone.pred_score, together[i].pred_score, rtol=0, atol=1e-5)
        assert alone.pred_label == together[i].pred_label
    mixed = logits_of(model, torch.cat([clouds[:1], 10 * clouds[1:].flip(0)]))
    assert apart(mixed[0], logits[0]) < 2e-6


def test_they_do_with_the_switch_on(clouds):
    model = build(released='v4', out_type='cls_max_mean')
    alone = torch.cat([logits_of(model, cloud[None]) for cloud in clouds])
    assert (alone - logits_of(model, clouds)).abs().max() > 1e-3
