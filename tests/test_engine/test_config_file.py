"""What is wrong with a config file is one line with the file and its line."""

import pytest
from mmengine.config import Config

from mmmap.engine.config_file import drop_worker_options, read_config
from mmmap.utils.errors import UserError


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a = 1\nb = dict(a=1\n', 'line 2: SyntaxError'),
        ('a = 1\n\nb = c\n', "line 3: NameError: name 'c' is not defined"),
        ('def f():\n    return {}["x"]\nb = f()\n', 'line 2: KeyError'),
        ("_base_ = './absent.py'\n", '_base_: file not found: .*absent.py'),
        ("_base_ = './a_config.py'\n", '_base_ files are in a circle: .*a_config.py -> .*a_config.py'),
        ("_base_ = './other.py'\nmodel = dict(a=1)\n", 'model'),
        ("custom_imports = dict(imports=['no_such_package'])\n", 'no_such_package'),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / 'other.py').write_text("model = 'x'\n")
    path = tmp_path / 'a_config.py'
    path.write_text(text)
    with pytest.raises(UserError, match=rf'{path}: .*{message}') as error:
        read_config(path)
    assert '\n' not in str(error.value)


def test_a_mistake_in_a_base_is_named_with_the_base(tmp_path):
    base, middle, path = (tmp_path / name for name in ('base.py', 'middle.py', 'top.py'))
    base.write_text('a = 1\nb = c\n')
    middle.write_text("_base_ = './base.py'\n")
    path.write_text("_base_ = './middle.py'\n")
    with pytest.raises(UserError, match=f'{path}: in its base {base}: line 2: NameError'):
        read_config(path)
    base.write_text("_base_ = './top.py'\n")
    with pytest.raises(
        UserError, match=f'{path}: its _base_ files are in a circle: {path} -> {middle} -> {base} -> {path}'
    ):
        read_config(path)


def test_options_of_workers_go_with_the_workers():
    rest = dict(persistent_workers=True, prefetch_factor=4, multiprocessing_context='fork', timeout=5)
    cfg = Config(
        dict(
            train_dataloader=dict(num_workers=2, **rest),
            val_dataloader=dict(num_workers=0, batch_size=1, **rest),
            custom_hooks=[dict(type='KNNHook', bank_dataloader=dict(rest))],
            test_cfg=dict(bank_dataloader=dict(num_workers=0, **rest)),
        )
    )
    drop_worker_options(cfg._cfg_dict)
    assert cfg.train_dataloader == dict(num_workers=2, **rest)
    assert cfg.val_dataloader == dict(num_workers=0, batch_size=1)
    assert cfg.custom_hooks[0].bank_dataloader == {}
    assert cfg.test_cfg.bank_dataloader == dict(num_workers=0)
