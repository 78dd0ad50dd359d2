import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmmap.registry import OPTIM_WRAPPERS


def _wrapper(model, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return OPTIM_WRAPPERS.build(dict(type='CPUAmpOptimWrapper', optimizer=optimizer, **options))


def test_forward_is_bfloat16_and_weights_stay_float32():
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    wrapper = _wrapper(model)
    with wrapper.optim_context(model):
        out = model(torch.randn(2, 4))
    assert out.dtype == torch.bfloat16
    assert not torch.is_autocast_enabled('cpu')
    wrapper.update_params(out.float().square().mean())
    assert model.weight.dtype == torch.float32 and not torch.equal(model.weight, before)


def test_accumulates_gradients():
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    wrapper = _wrapper(model, accumulative_counts=2)
    for changes in (False, True):
        with wrapper.optim_context(model):
            loss = model(torch.ones(2, 4)).float().sum()
        wrapper.update_params(loss)
        assert torch.equal(model.weight, before) is not changes


def test_resumes_what_other_wrappers_saved():
    model = nn.Linear(4, 3)
    plain = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    plain.update_params(model(torch.ones(2, 4)).sum())
    state = plain.state_dict()
    momentum = state['state'][0]['momentum_buffer'].clone()
    wrapper = _wrapper(model)
    wrapper.load_state_dict(state | dict(loss_scaler=dict(scale=2.0)))
    assert torch.equal(wrapper.state_dict()['state'][0]['momentum_buffer'], momentum)
    assert 'loss_scaler' not in wrapper.state_dict()
