"""CompileHook on a small run under mmengine's Runner; 'aot_eager' traces as the real backend and compiles nothing."""

import copy

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmmap.engine.errors import UserError
from mmmap.engine.hooks import CompileHook

MODEL = dict(
    type='MAP',
    backbone=dict(
        type='MAPHybrid', arch=dict(embed_dim=16, layout='MT', num_heads=2, d_state=4), img_size=16, patch_size=4
    ),
    neck=dict(type='RegionCausalDecoder', in_dim=16, grid=4, embed_dim=16, depth=1, num_heads=2),
    head=dict(type='PixelReconstructionHead', in_dim=16, patch_size=4),
    data_preprocessor=dict(type='SelfSupDataPreprocessor'),
)


class Images(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(index)), data_samples=index)


class Linear(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, inputs, mode):
        return {}


def runner(tmp_path, hooks, model=MODEL, **optim_wrapper):
    """Two epochs of two batches of four images."""
    return Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            dataset=Images(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), **optim_wrapper),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=hooks,
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        experiment_name=f'{tmp_path.parent.name}_{tmp_path.name}',
    )


def trained(tmp_path, hooks):
    run = runner(tmp_path, hooks)
    run.train()
    return run.model.state_dict(), torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict']


@pytest.fixture
def traced(monkeypatch):
    """The graphs that were compiled."""
    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    yield graphs, backend
    torch.compiler.reset()


def test_training_is_the_same_and_weights_keep_their_names(tmp_path):
    torch.compiler.reset()
    plain, saved_plain = trained(tmp_path / 'plain', [])
    compiled, saved = trained(tmp_path / 'compiled', [dict(type='CompileHook', backend='aot_eager')])
    assert list(compiled) == list(plain) and list(saved) == list(saved_plain)
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5)
        assert torch.equal(saved[name], compiled[name])


def test_encoder_and_decoder_are_one_graph_each(tmp_path, traced):
    graphs, backend = traced
    runner(tmp_path, [CompileHook(backend=backend)]).train()
    operators = [[str(node.target) for node in graph.graph.nodes if node.op == 'call_function'] for graph in graphs]
    assert len(graphs) == 2
    assert sum(name.startswith('mmmap.bidirectional_scan') for name in operators[0]) == 1


def test_evaluations_smaller_batches_and_copies_are_not_compiled(tmp_path, traced):
    graphs, backend = traced
    run = runner(tmp_path, [CompileHook(backend=backend)])
    run.call_hook('before_train')
    average = copy.deepcopy(run.model)
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        run.model.backbone(images)
    average.backbone(images)[0].sum().backward()
    assert not graphs
    run.model.backbone(images)[0].sum().backward()
    run.model.backbone(images[:2])[0].sum().backward()
    assert len(graphs) == 1
    assert average.backbone.encoder._compiled_call_impl is None


def test_no_such_mode():
    with pytest.raises(ValueError, match="mode='fastest': must be one of default, reduce-overhead"):
        CompileHook(mode='fastest')


def test_graphs_do_not_go_with_accumulated_gradients(tmp_path):
    run = runner(tmp_path, [CompileHook('reduce-overhead')], accumulative_counts=2)
    with pytest.raises(UserError, match='accumulative_counts'):
        run.train()


def test_nothing_to_compile_is_an_error(tmp_path):
    run = runner(tmp_path, [CompileHook()], Linear())
    with pytest.raises(UserError, match='Linear has neither an encoder nor a decoder of tokens'):
        run.train()
