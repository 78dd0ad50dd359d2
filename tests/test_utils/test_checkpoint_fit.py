import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from torch import nn

from mmmap.utils.errors import UserError


class _Net(BaseModule):
    def __init__(self, width=2, init_cfg=None):
        super().__init__(init_cfg)
        self.backbone = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width))
        self.head = nn.Linear(width, 3)


class _Renamed(_Net):
    """Takes weights under older names, as many backbones do."""

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for key in list(state_dict):
            state_dict[key.replace('old.', 'backbone.')] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _save(path, weights):
    torch.save(dict(state_dict=dict(weights)), path)
    return str(path)


@pytest.mark.parametrize(
    ('rename', 'width', 'hint'),
    [
        (lambda name: f'model.{name}', 2, r"prefix='model\.'"),
        (lambda name: name.removeprefix('backbone.'), 2, r"the model's part 'backbone'"),
        (
            lambda name: f'x{name}',
            2,
            r"its names are like 'xbackbone\.0\.weight', those of the model like 'backbone\.0",
        ),
    ],
)
def test_nothing_that_fits_is_an_error(tmp_path, rename, width, hint):
    weights = {rename(name): value for name, value in _Net(width).state_dict().items() if 'head' not in name}
    path = _save(tmp_path / 'other.pth', weights)
    for load in (
        lambda: load_checkpoint(_Net(), path),
        lambda: _Net(init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights(),
    ):
        with pytest.raises(UserError, match=rf'other\.pth: none of its \d weights fits _Net.*{hint}') as error:
            load()
        assert '\n' not in str(error.value)


def test_other_shapes_and_no_weights(tmp_path):
    weights = {name: value for name, value in _Net(5).state_dict().items() if 'backbone' in name}
    with pytest.raises(UserError, match=r'backbone\.0\.weight has the shape \(5, 5\), in the model \(2, 2\)'):
        load_checkpoint(_Net(), _save(tmp_path / 'wide.pth', weights))
    with pytest.raises(UserError, match='none of its 0 weights fits _Net; it holds nothing'):
        load_checkpoint(_Net(), _save(tmp_path / 'empty.pth', {}))
    torch.save(dict(model=dict(a=torch.ones(1)), epoch=3), tmp_path / 'nested.pth')
    with pytest.raises(UserError, match=r"none of its 0 weights fits _Net; it holds 'model', 'epoch'"):
        load_checkpoint(_Net(), str(tmp_path / 'nested.pth'))


def test_a_prefix_that_fits_nothing(tmp_path):
    path = _save(tmp_path / 'net.pth', _Net().state_dict())
    net = _Net(init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone'))
    with pytest.raises(UserError, match=r'net\.pth: none of its \d weights fits _Net'):
        net.init_weights()


def test_some_that_fit_are_counted(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr('mmmap.utils.checkpoint_fit.print_log', lambda text, logger: lines.append(text))
    net, source = _Net(), _Net()
    load_checkpoint(net, _save(tmp_path / 'whole.pth', source.state_dict()))
    assert lines == []
    weights = {name: value for name, value in source.state_dict().items() if 'head' not in name}
    load_checkpoint(net, _save(tmp_path / 'part.pth', weights))
    assert lines == [
        f'4 of 6 weights of _Net are from {tmp_path}/part.pth; these keep their initial values: head.weight, head.bias'
    ]


def test_a_model_that_renames_what_it_is_given(tmp_path):
    source = _Net()
    weights = {name.replace('backbone.', 'old.'): value for name, value in source.state_dict().items()}
    net = _Renamed()
    load_checkpoint(net, _save(tmp_path / 'old.pth', {name: value for name, value in weights.items() if 'old' in name}))
    assert torch.equal(net.backbone[0].weight, source.backbone[0].weight)
