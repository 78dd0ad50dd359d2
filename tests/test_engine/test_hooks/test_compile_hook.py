"""CompileHook on a small run under mmengine's Runner; 'aot_eager' traces as the real backend and compiles nothing."""

import copy

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmmap.engine.hooks import CompileHook
from mmmap.engine.hooks.compile_hook import compile_parts
from mmmap.utils.errors import UserError

MODEL = dict(
    type='MAP',
    backbone=dict(
        type='MAPHybrid', arch=dict(embed_dim=16, layout='MT', num_heads=2, d_state=4), img_size=16, patch_size=4
    ),
    neck=dict(type='RegionCausalDecoder', embed_dim=16, depth=1, num_heads=2),
    head=dict(type='PixelReconstructionHead'),
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

    def backend(graph, inputs, mode=None):
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


def scans(graph) -> int:
    return sum(str(node.target).startswith('mmmap.bidirectional_scan') for node in graph.graph.nodes)


def deep(layout='MMTMT', **backbone) -> dict:
    arch = dict(embed_dim=16, layout=layout, num_heads=2, d_state=4)
    return MODEL | dict(
        backbone=MODEL['backbone'] | dict(arch=arch) | backbone, neck=MODEL['neck'] | dict(depth=3, embed_dim=8)
    )


@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_all_blocks_of_a_class_are_one_graph(tmp_path, traced, rate):
    graphs, backend = traced
    runner(tmp_path, [CompileHook(backend=backend)], deep('MMTMT' * 3, drop_path_rate=rate)).train()
    # The encoder's first block has no branch to add. The rate of drop path is 0, then one above 0, then a variable.
    assert [scans(graph) for graph in graphs].count(1) == 2 + (rate > 0)
    assert len(graphs) <= 4 + (rate > 0)


@pytest.mark.parametrize(('mode', 'with_cp'), [('reduce-overhead', False), ('default', True), ('default', 'selective')])
def test_cuda_graphs_and_recomputed_blocks_take_the_whole_part(tmp_path, traced, mode, with_cp):
    graphs, backend = traced
    run = runner(tmp_path, [CompileHook(mode, backend)], deep(with_cp=with_cp))
    compile_parts(run.model, mode, backend)
    run.model.backbone(torch.randn(4, 3, 16, 16))[0].sum().backward()
    assert len(graphs) == 1


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
    assert len(graphs) == 2
    assert all(block._compiled_call_impl is None for block in average.backbone.encoder.blocks)


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
