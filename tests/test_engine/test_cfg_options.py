"""--cfg-options: what is read, and the one line about what is not."""

import argparse

import pytest
from mmengine.config import Config, ConfigDict

from mmmap.engine.cfg_options import CfgOptions, apply_options
from mmmap.utils.errors import UserError


def _parse(*texts):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
    return parser.parse_args(['--cfg-options', *texts]).cfg_options


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        # As mmengine reads them.
        ('64', 64),
        ('1e-3', 1e-3),
        ('true', True),
        ('None', None),
        ('base', 'base'),
        ('a=b', 'a=b'),
        ('1,2', [1, 2]),
        ('[a,(1,2)]', ['a', (1, 2)]),
        ('epoch_{}.pth', 'epoch_{}.pth'),
        ('{}_{}.pth', '{}_{}.pth'),
        ('${HOME}', '${HOME}'),
        # With dicts, as Python does; names without quotes, which a shell takes away, are strings.
        ("[dict(type='CompileHook')]", [dict(type='CompileHook')]),
        ("[dict(type=CompileHook, mode='reduce-overhead')]", [dict(type='CompileHook', mode='reduce-overhead')]),
        ("dict(a=-1.5, b=[1, (2,)], c={'d': None}, e=true)", dict(a=-1.5, b=[1, (2,)], c=dict(d=None), e=True)),
        ('{}', {}),
    ],
)
def test_values(text, expected):
    assert _parse('x=1', f'key={text}') == dict(x=1, key=expected)


@pytest.mark.parametrize(
    'text',
    [
        'train_dataloader.batch_size',
        '=4',
        'a b=4',
        'key=[1,2',
        'key=[dict(type="x")',
        'key=f(1,2)',
        'key=[f(1,2)]',
        'key=dict(a=open("x"))',
        'key=dict(**a)',
        'key={**a}',
    ],
)
def test_what_cannot_be_read_is_one_line_with_the_right_form(text, capsys):
    with pytest.raises(SystemExit) as end:
        _parse(text)
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f'error: --cfg-options {text}: ') and 'KEY=VALUE' in lines[0]


def _config():
    return Config(
        dict(
            model=dict(arch='base', depth=2),
            train_dataloader=dict(batch_size=8),
            custom_hooks=[dict(type='A'), dict(type='B')],
            variable=1,
            mean=[0.5],
        )
    )


def test_options_are_merged():
    cfg = _config()
    # A key of the config, one that is new there, one that a Runner reads, a list by its index, a whole dict anew.
    options = {'variable': 2, 'model.new.key': 3, 'resume': True, 'custom_hooks.1.interval': 4}
    apply_options(cfg, options | {'train_dataloader': dict(_delete_=True, num_workers=1)})
    assert cfg.variable == 2 and cfg.model.new.key == 3 and cfg.resume is True
    assert cfg.custom_hooks == [dict(type='A'), dict(type='B', interval=4)]
    assert cfg.train_dataloader == dict(num_workers=1)
    apply_options(cfg, {'custom_hooks': [dict(type='C', a=dict(b=1))]})
    # By attribute too, as OpenMMLab's code wants it.
    assert isinstance(cfg.custom_hooks[0], ConfigDict) and cfg.custom_hooks[0].a.b == 1


def test_keys_can_be_set_in_what_is_none():
    cfg = Config(dict(model=dict(init_cfg=None, parts=[dict(norm=None)])))
    options = {'model.init_cfg.type': 'Pretrained', 'model.init_cfg.prefix': 'a.', 'model.parts.0.norm.eps': 1}
    apply_options(cfg, options)
    assert cfg.model == dict(init_cfg=dict(type='Pretrained', prefix='a.'), parts=[dict(norm=dict(eps=1))])


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('train_dataloder.batch_size', 4, 'train_dataloder is not in the config.*did you mean train_dataloader'),
        ('optim_wraper.optimizer.lr', 4, 'optim_wraper is not in.*did you mean optim_wrapper'),
        ('foo', 4, 'foo is not in the config, and nothing would read it$'),
        ('custom_hooks.2.interval', 4, "custom_hooks is a list of 2, which has no '2'"),
        ('custom_hooks.x', 4, "custom_hooks is a list of 2, which has no 'x'"),
        ('model.arch.embed_dim', 4, "model.arch is 'base', which has no 'embed_dim'"),
        ('mean.0', 4, 'mean is a list of values: set it as a whole, mean='),
        ('model.depth', dict(a=1), 'model.depth is 2, not a dict'),
    ],
)
def test_a_key_that_fits_nowhere_is_named(key, value, message):
    with pytest.raises(UserError, match=f'--cfg-options {key}: {message}'):
        apply_options(_config(), {'train_dataloader.batch_size': 2, key: value})
