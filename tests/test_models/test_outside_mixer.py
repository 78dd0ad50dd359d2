"""A mixer that no file of the package names, that of docs/en/extend.md, does all that the package's own mixers do."""

from collections import Counter

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from page_examples import ROOT, in_folder, losses, runner
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from mmmap.analysis import count_complexity, token_responses
from mmmap.engine.hooks import CompileHook
from mmmap.engine.strategies import wrap_blocks

# Of the config: width and heads; 64 tokens, half of them visible.
C, H, L, VISIBLE = 128, 8, 64, 32


@pytest.fixture(scope='module', autouse=True)
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('outside')
    with in_folder(path):
        yield path


@pytest.fixture(scope='module')
def trained(folder):
    """Twelve steps: the run and its losses; a checkpoint after six."""
    run = runner('gla.py', 12)
    run.train()
    return run, losses(run)


@pytest.fixture
def mixer(folder):
    from gated_linear_attention import GatedLinearAttention

    return GatedLinearAttention(16, gla_heads=2)


def backbone(**changes):
    arch = dict(embed_dim=32, layout='GGT', num_heads=4, gla_heads=2)
    cfg = dict(type='MAPHybrid', arch=arch, img_size=32, patch_size=8, out_type='raw')
    return MODELS.build(cfg | changes)


def test_no_file_of_the_package_names_it():
    words = 'GatedLinearAttention', 'gated_linear_attention', 'gla_heads', "register_block('G')"
    named = [path for path in (ROOT / 'mmmap').rglob('*.py') if any(word in path.read_text() for word in words)]
    assert not named


def test_a_file_that_is_not_imported_is_the_error():
    with pytest.raises(ValueError, match=r"arch.layout='ZZZT': letters are .*M, T; .*custom_imports"):
        backbone(arch=dict(embed_dim=32, layout='ZZZT', num_heads=4, its_option=2))


def test_it_is_a_recurrence_in_either_direction(mixer):
    x = torch.randn(2, 7, 16)
    q, k = mixer.qk(x).unflatten(-1, (2, 2, -1)).unbind(2)
    value = mixer.value(x).unflatten(-1, (2, -1))
    kept = torch.sigmoid(mixer.forget(x)[:, None] + torch.tensor([[0.5, 1.0], [1.5, 2.0]])[:, None])
    mixer.decay.data = torch.tensor([[0.5, 1.0], [1.5, 2.0]])
    own = torch.einsum('blhd,blhe->blhde', k, value) * q.shape[-1] ** -0.5

    def read(state, i):
        return torch.einsum('bhd,bhde->bhe', q[:, i], state)

    state, forward = torch.zeros_like(own[:, 0]), []
    for i in range(7):
        state = kept[:, 0, i, :, None, None] * state + own[:, i]
        forward.append(read(state, i))
    state, both = torch.zeros_like(state), []
    for i in reversed(range(7)):
        # What comes from behind; the token itself is in the forward sum.
        both.insert(0, forward[i] + read(state, i))
        state = kept[:, 1, i, :, None, None] * (state + own[:, i])
    for causal, expected in ((True, forward), (False, both)):
        mixed = torch.einsum('bhlm,bmhd->blhd', mixer.weights(x, causal), value)
        torch.testing.assert_close(mixed, torch.stack(expected, 1))


def test_training_makes_the_loss_fall(trained):
    run, values = trained
    assert run.model.backbone.encoder.layout == 'GGGT' * 2
    assert len(values) == 12 and sum(values[-3:]) < 0.75 * sum(values[:3])


def test_a_resumed_run_gives_the_same_numbers(trained, folder):
    run, values = trained
    resumed = runner('gla.py', 12, load_from=str(folder / 'runs/iter_6.pth'), resume=True)
    resumed.train()
    assert losses(resumed)[-6:] == values[6:]
    for name, value in run.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def classifier(folder, layout, **options):
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='MAPHybrid',
                arch=dict(embed_dim=C, layout=layout, num_heads=4, **options),
                img_size=32,
                patch_size=4,
                out_type='avg_featmap',
                init_cfg=dict(type='Pretrained', checkpoint=str(folder / 'runs/iter_12.pth'), prefix='backbone.'),
            ),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=C),
        )
    )


def test_a_classifier_takes_the_pretrained_weights(trained, folder):
    model = classifier(folder, 'GGGT' * 2, gla_heads=H)
    model.init_weights()
    weights = trained[0].model.backbone.state_dict()
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_a_classifier_of_other_options_is_refused(trained, folder):
    with pytest.raises(ValueError, match=r'mixer\.decay 2x8, here 2x4'):
        classifier(folder, 'GGGT' * 2).init_weights()


def test_a_classifier_of_another_layout_is_refused(trained, folder):
    with pytest.raises(ValueError, match=r"'GGGT' \* 2.*'MMMT' \* 2"):
        classifier(folder, 'MMMT' * 2).init_weights()


def test_fsdp_shards_block_by_block(tmp_path):
    model = backbone().eval()
    images = torch.randn(1, 3, 32, 32)
    expected = model(images)[0]
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        wrapped = FullyShardedDataParallel(model, auto_wrap_policy=wrap_blocks, device_id=torch.device('cpu'))
        units = [name for name, m in wrapped.named_modules() if isinstance(m, FullyShardedDataParallel)]
        assert [name[-1:] for name in units] == ['', '0', '1', '2']
        torch.testing.assert_close(wrapped(images)[0], expected)
    finally:
        torch.distributed.destroy_process_group()


def test_it_is_counted_under_its_own_name(trained):
    model = MODELS.build(trained[0].cfg.model)
    blocks = [block for block in model.backbone.encoder.blocks if type(block).__name__ == 'GatedLinearAttentionBlock']
    own = count_complexity(model, torch.randn(2, 3, 32, 32))['gated linear attention']
    assert own.parameters == sum(p.numel() for block in blocks for p in block.parameters())
    linear, attention = 2 * VISIBLE * C * (5 * C + H), 2 * 2 * VISIBLE**2 * C
    assert own.flops == 2 * len(blocks) * (linear + attention)


def test_a_compiled_run_gives_the_same_losses(trained):
    graphs = []

    def backend(graph, inputs):
        graphs.append(' '.join(str(node.target) for node in graph.graph.nodes))
        return graph

    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    run = runner('gla.py', 2, work_dir='compiled')
    run.register_hook(CompileHook(backend=backend))
    run.train()
    assert any('log_sigmoid' in graph for graph in graphs)
    assert not torch._dynamo.utils.counters['graph_break']
    torch.testing.assert_close(losses(run), trained[1][:2], rtol=1e-4, atol=0)
    torch.compiler.reset()


class Products(TorchDispatchMode):
    """Counts the batched products, which are those between tokens."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[str(func)] += 1
        return func(*args, **kwargs or {})


def test_checkpointing_keeps_what_the_mixer_names():
    images, calls, gradients = torch.randn(2, 3, 32, 32), {}, {}
    weights = backbone().state_dict()
    for with_cp in (False, True, 'selective'):
        model = backbone(with_cp=with_cp)
        model.load_state_dict(weights)
        with Products() as counted:
            model(images)[0].square().sum().backward()
        calls[with_cp] = counted.calls
        gradients[with_cp] = [p.grad for p in model.parameters()]
    for with_cp in (True, 'selective'):
        torch.testing.assert_close(gradients[with_cp], gradients[False])
    product, exp = 'aten.bmm.default', 'aten.exp.default'
    # Two blocks of two products; the gate is computed again in either mode.
    assert calls[True][product] == calls[False][product] + 4
    assert calls['selective'][product] == calls[False][product]
    assert calls['selective'][exp] == calls[True][exp] == calls[False][exp] + 2


def test_what_it_exempts_is_not_decayed(trained):
    model = MODELS.build(trained[0].cfg.model)
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
        constructor='LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    groups = {name: g for g in build_optim_wrapper(model, cfg).optimizer.param_groups for name in g['param_names']}
    blocks = 'backbone.encoder.blocks'
    assert groups[f'{blocks}.0.mixer.decay']['weight_decay'] == 0
    assert groups[f'{blocks}.0.mixer.forget.bias']['weight_decay'] == 0
    assert groups[f'{blocks}.0.mixer.forget.weight']['weight_decay'] == 0.05
    # Depth 1 and 7 of 0 to 9.
    assert groups[f'{blocks}.0.mixer.qk.weight']['lr'] == 0.5**8
    assert groups[f'{blocks}.6.mixer.qk.weight']['lr'] == 0.5**2


def test_it_tells_what_a_token_responds_to():
    model = backbone(serialization='column').eval()
    images, seen = torch.randn(2, 3, 32, 32), []
    block = model.encoder.blocks[1]
    block.norm.register_forward_hook(lambda _module, _args, output: seen.append(output))
    responses = token_responses(model, images, (1, 2), [1])[1]
    # Columns one after the other: row 1 of column 2 is place 9.
    expected = block.mixer.weights(seen[0])[:, :, 9].abs().mean(1).view(2, 4, 4).transpose(1, 2)
    torch.testing.assert_close(responses, expected)


def test_ar_trains_it_forwards_only():
    changes = dict(
        _delete_=True,
        type='AR',
        backbone=dict(type='MAPHybrid', arch=dict(embed_dim=32, layout='GT', num_heads=4), img_size=32, patch_size=8),
        neck=dict(type='NextRegionDecoder', embed_dim=32, depth=1, num_heads=4),
        head=dict(type='PixelReconstructionHead'),
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[78.0] * 3, std=[96.0] * 3),
    )
    run = runner('gla.py', 2, work_dir='ar', model=changes, optim_wrapper__optimizer__lr=0.1)
    run.train()
    decay = torch.load('ar/iter_2.pth', weights_only=False)['state_dict']['backbone.encoder.blocks.0.mixer.decay']
    assert torch.equal(decay[0], decay[1]) and not torch.allclose(decay[0], torch.tensor(2.0), atol=1e-2)
    latents = []
    for change in (0.0, 1.0):
        tokens = run.model.backbone.tokenize(torch.zeros(1, 3, 32, 32))
        tokens.embeddings[:, 12:] += change
        latents.append(run.model.backbone.encode(tokens, causal=True))
    torch.testing.assert_close(latents[0][:, :12], latents[1][:, :12])
    assert not torch.allclose(latents[0][:, 12:], latents[1][:, 12:])
