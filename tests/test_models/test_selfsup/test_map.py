"""MAP as an algorithm: what is hidden, what gets a gradient, what is refused, and that it learns."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.registry import MODELS as PRETRAIN_MODELS
from torch.utils._python_dispatch import TorchDispatchMode

from mmmap.models.backbones import MAPHybrid
from mmmap.models.layers.region_attention import ATTENTION_RULES
from mmmap.models.selfsup import MAP, RandomMasking, SequentialMasking

IMAGES = (2, 3, 64, 64)


def random_mask(batch: int = 2, length: int = 16, hidden: int = 9) -> torch.Tensor:
    return torch.rand(batch, length).argsort(1).argsort(1) < hidden


@pytest.mark.parametrize('registry', [ROOT_MODELS, PRETRAIN_MODELS], ids=['root', 'mmpretrain'])
def test_builds_from_a_bare_name(registry, map_cfg):
    model = registry.build(map_cfg())
    assert isinstance(model, MAP)
    assert isinstance(model, BaseSelfSupervisor)


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmseg'])
def test_builds_under_any_default_scope(scope, map_cfg):
    with DefaultScope.overwrite_default_scope(scope):
        assert isinstance(ROOT_MODELS.build(map_cfg()), MAP)


def test_defaults(map_cfg):
    cfg = map_cfg()
    del cfg['backbone']['out_type']
    model = ROOT_MODELS.build(cfg)
    assert model.backbone.out_type == 'raw'
    assert isinstance(model.masking, RandomMasking)
    assert (model.masking.low, model.masking.high) == (0.5, 0.5)


def test_masking_from_a_config_or_ready_made(build_map):
    assert build_map(masking=dict(type='RandomMasking', ratio=(0.3, 0.7))).masking.high == 0.7
    strategy = SequentialMasking(0.25)
    model = build_map(masking=strategy)
    assert model.masking is strategy
    mask = model.reconstruct(torch.randn(IMAGES)).mask
    assert torch.equal(mask, (torch.arange(16) >= 12).expand(2, -1))


def test_a_ratio_of_zero_rebuilds_everything(build_map):
    model, images = build_map(masking=dict(type='RandomMasking', ratio=0)), torch.randn(IMAGES)
    result = model.reconstruct(images)
    assert result.latent.shape[1] == 16
    assert not result.mask.any()
    torch.testing.assert_close(result.loss(), (result.pred - model.head.target(images)).square().mean())


def test_the_encoder_reads_by_the_serialization_and_predictions_stay_in_place(map_cfg):
    mask = random_mask()
    images = torch.randn(IMAGES)
    row_cfg, column_cfg = map_cfg(), map_cfg()
    column_cfg['backbone']['serialization'] = 'column'
    row, column = ROOT_MODELS.build(row_cfg).eval(), ROOT_MODELS.build(column_cfg).eval()
    column.load_state_dict(row.state_dict())
    result = column.reconstruct(images, mask)
    tokens = column.backbone.tokenize(images)
    order = torch.arange(16).view(4, 4).t().flatten()
    for i in range(2):
        visible = order[~mask[i, order]].expand(2, -1)
        torch.testing.assert_close(result.latent[i], column.backbone.encode(tokens, visible)[i])
    # A prediction sees the regions up to its own, here columns.
    images.requires_grad_()
    result = column.reconstruct(images, mask)
    (gradient,) = torch.autograd.grad(result.pred[:, 0].sum(), images)
    assert not torch.allclose(result.pred, row.reconstruct(images, mask).pred, rtol=1e-3, atol=1e-3)
    assert gradient.abs().sum() > 0


def test_parts_may_be_ready_made(build_map):
    parts = build_map()
    model = MAP(parts.backbone, parts.neck, parts.head)
    assert model.reconstruct(torch.randn(IMAGES)).pred.shape == (2, 16, 768)


@pytest.mark.parametrize('layout', ['MMMT', 'M', 'T', 'TMMT', 'MTT'])
@pytest.mark.parametrize('attention', ATTENTION_RULES)
def test_every_parameter_gets_a_gradient(build_map, layout, attention):
    model = build_map(layout, attention)
    model(torch.randn(IMAGES), mode='loss')['loss'].backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_result(build_map):
    model = build_map()
    result = model.reconstruct(torch.randn(3, 3, 48, 80))
    assert result.mask.shape == (3, 15)
    assert result.mask.dtype == torch.bool
    assert result.mask.sum(1).tolist() == [8] * 3
    assert result.latent.shape == (3, 7, 32)
    assert result.pred.shape == (3, 15, 768)
    assert result.grid == (3, 5)
    assert result.images().shape == (3, 3, 48, 80)
    assert not result.images().requires_grad
    assert result.loss().shape == ()


def test_loss_follows_from_the_result(build_map):
    model, images = build_map(), torch.randn(IMAGES)
    result = model.reconstruct(images, random_mask())
    error = (result.pred - model.head.target(images)).square().mean(-1)
    torch.testing.assert_close(result.loss(), error[result.mask].mean())


@pytest.mark.parametrize('hidden', [1, 9, 15])
def test_the_encoder_sees_visible_tokens_in_sequence_order(build_map, hidden):
    model, images, mask = build_map(), torch.randn(IMAGES), random_mask(hidden=hidden)
    seen = []
    model.backbone.encoder.forward = lambda x, **_options: seen.append(x) or x
    model.reconstruct(images, mask)
    tokens = model.backbone.tokenize(images).embeddings
    assert torch.equal(seen[0], tokens[~mask].view(2, 16 - hidden, 32))


def test_hidden_pixels_reach_neither_latents_nor_predictions(build_map):
    model, mask = build_map().eval(), random_mask()
    images = torch.randn(IMAGES)
    patches = model.head.patchify(images)
    other = torch.where(mask[..., None], torch.randn_like(patches), patches)
    first, second = (model.reconstruct(x, mask) for x in (images, model.head.unpatchify(other, (4, 4))))
    assert torch.equal(first.latent, second.latent)
    assert torch.equal(first.pred, second.pred)
    assert first.loss() != second.loss()


def test_predictions_belong_to_their_places(build_map):
    """Latents that are the tokens, and a decoder that hands them on, give back the visible tokens in their places."""
    model, images, mask = build_map(), torch.randn(IMAGES), random_mask()
    model.backbone.encoder.forward = lambda x, **_options: x
    model.neck.embed = model.neck.norm = model.head.proj = torch.nn.Identity()
    model.neck.blocks = torch.nn.ModuleList()
    with torch.no_grad():
        model.neck.pos_embed.weight.zero_()
    pred = model.reconstruct(images, mask).pred
    tokens = model.backbone.tokenize(images).embeddings
    assert torch.equal(pred[~mask], tokens[~mask])
    assert torch.equal(pred[mask], model.neck.mask_token[0].expand(18, -1))


@pytest.mark.parametrize('dtype', [torch.bool, torch.float32, torch.int64, torch.uint8])
def test_a_mask_of_any_type(build_map, dtype):
    model, images, mask = build_map().eval(), torch.randn(IMAGES), random_mask()
    result = model.reconstruct(images, mask.to(dtype))
    assert torch.equal(result.mask, mask)
    assert torch.equal(result.pred, model.reconstruct(images, mask).pred)


@pytest.mark.parametrize(
    ('mask', 'culprit'),
    [
        (torch.ones(2, 15), r'\(2, 15\).*\(2, 16\)'),
        (torch.ones(3, 16), r'\(3, 16\)'),
        (torch.ones(16), r'\(16,\)'),
        (torch.zeros(2, 16), r'hides \[0\]'),
        (torch.ones(2, 16), r'hides \[16\]'),
        (torch.arange(32).view(2, 16) < 12, r'hides \[0, 12\]'),
    ],
)
def test_wrong_masks_are_named(build_map, mask, culprit):
    with pytest.raises(ValueError, match=culprit):
        build_map().reconstruct(torch.randn(IMAGES), mask)


def test_masks_of_a_run_differ_from_step_to_step(build_map, message_hub):
    model, images = build_map(), torch.randn(IMAGES)
    masks = []
    for iteration in range(4):
        message_hub.update_info('iter', iteration)
        masks += [model.reconstruct(images).mask for _ in range(2)]
    assert len(torch.stack(masks).flatten(1).unique(dim=0)) == 8


def test_registers_are_refused(map_cfg):
    cfg = map_cfg()
    cfg['backbone'].update(out_type='registers', num_registers=4)
    with pytest.raises(ValueError, match=r'num_registers=4.*raw'):
        ROOT_MODELS.build(cfg)


@pytest.mark.parametrize('option', [dict(out_indices=0), dict(frozen_stages=1)])
def test_weights_that_would_stay_untrained_are_refused(map_cfg, option):
    cfg = map_cfg()
    cfg['backbone'].update(option)
    with pytest.raises(ValueError, match='out_indices and frozen_stages'):
        ROOT_MODELS.build(cfg)


@pytest.mark.parametrize('argument', ['mask_ratio', 'backbones', 'pretrained', 'target_generator'])
def test_a_misspelt_argument_is_named(map_cfg, argument):
    with pytest.raises(TypeError, match=argument):
        ROOT_MODELS.build(map_cfg(**{argument: None}))


def test_an_image_size_that_no_patch_divides_is_named(build_map):
    with pytest.raises(ValueError, match=r'64x70.*patch_size=16'):
        build_map().reconstruct(torch.randn(1, 3, 64, 70))


def test_modes_of_forward(build_map):
    model = build_map()
    assert set(model(torch.randn(IMAGES), mode='loss')) == {'loss'}
    assert model(torch.randn(IMAGES), mode='tensor')[0].shape == (2, 16, 32)


def test_train_step_normalises_and_updates(map_cfg):
    model = ROOT_MODELS.build(map_cfg(data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    seen = []
    model.backbone.patch_embed.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    batch = dict(inputs=torch.randint(0, 256, IMAGES, dtype=torch.uint8), data_samples=[None, None])
    logs = model.train_step(batch, OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3)))
    assert logs['loss'].isfinite()
    torch.testing.assert_close(seen[0], (batch['inputs'].flip(1).float() - 120) / 60)
    assert all(not torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_bfloat16_autocast(build_map):
    model, images, mask = build_map(), torch.randn(IMAGES), random_mask()
    exact = model.reconstruct(images, mask).loss()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = model.reconstruct(images, mask).loss()
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.03)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


class Ops(TorchDispatchMode):
    """Collects the names of all operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name().split('::')[1].split('.')[0])
        return func(*args, **(kwargs or {}))

    def synchronising(self) -> set[str]:
        """Those whose result on the host or whose shape waits for an accelerator."""
        waits = {'nonzero', '_local_scalar_dense', 'item', 'masked_select', '_unique2', 'unique_dim', 'equal'}
        return self.names & waits


@pytest.mark.parametrize('strategy', ['RandomMasking', 'SequentialMasking', 'DiagonalMasking'])
@pytest.mark.parametrize('attention', ATTENTION_RULES)
def test_a_step_never_waits_for_the_device(build_map, message_hub, strategy, attention):
    model = build_map(attention=attention, masking=dict(type=strategy, ratio=0.5))
    images = torch.randn(IMAGES)
    with Ops() as ops:
        model.loss(images)['loss'].backward()
    assert {'convolution', 'gather', 'sort'} <= ops.names
    assert not ops.synchronising()


def test_waiting_would_be_seen(build_map):
    with Ops() as ops:
        build_map().reconstruct(torch.randn(IMAGES), random_mask())  # A mask of the user's is checked.
    assert ops.synchronising()


def test_it_learns_digits():
    from sklearn.datasets import load_digits

    digits = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    train, held_out = digits[:1500], digits[1500:]
    mask = torch.rand(len(held_out), 16).argsort(1).argsort(1) < 8
    torch.manual_seed(1)
    arch = dict(embed_dim=32, layout='MMMT', num_heads=4, d_state=4)
    model = ROOT_MODELS.build(
        dict(
            type='MAP',
            backbone=dict(type='MAPHybrid', arch=arch, img_size=8, patch_size=2, in_channels=1),
            neck=dict(type='RegionCausalDecoder', in_dim=32, grid=4, embed_dim=32, depth=1, num_heads=4),
            head=dict(type='PixelReconstructionHead', in_dim=32, patch_size=2, in_channels=1, norm_pix=False),
        )
    )
    assert isinstance(model.backbone, MAPHybrid)

    def evaluate() -> float:
        with torch.no_grad():
            return model.eval().reconstruct(held_out, mask).loss().item()

    constant = (model.head.target(held_out)[mask] - model.head.target(train).mean((0, 1))).square().mean().item()
    untrained = evaluate()
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=4e-3)
    for _ in range(30):
        loss = model.loss(train[torch.randint(len(train), (96,))])['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained = evaluate()
    assert trained < 0.6 * untrained, (untrained, constant, trained)
    assert trained < 0.8 * constant, (untrained, constant, trained)  # It does not just paint every patch alike.
