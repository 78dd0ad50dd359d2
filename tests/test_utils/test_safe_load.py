import argparse
import codecs
import pickle
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path, PurePosixPath

import mmengine
import numpy as np
import pytest
import torch
from evil_files import Call, evil_checkpoint, evil_pickle, payloads
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor.metadata import MEM_FORMAT_ENCODING

from mmmap.utils import safe_load
from mmmap.utils.errors import DamagedFileError, RefusedFileError, UserError
from mmmap.utils.safe_load import load, load_checkpoint, unpickle

KINDS = tuple(payloads(Path()))


def test_the_payloads_work(tmp_path):
    for kind in KINDS:
        try:
            torch.load(evil_checkpoint(tmp_path / 'evil.pth', tmp_path / kind, kind), weights_only=False)
        except TypeError:
            assert kind == 'open'  # An open file is no tensor.
        assert (tmp_path / kind).is_file()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('legacy', [False, True])
def test_nothing_in_a_checkpoint_is_run(tmp_path, kind, legacy):
    path = evil_checkpoint(tmp_path / 'evil.pth', tmp_path / 'marker', kind, legacy)
    with pytest.raises(RefusedFileError, match=r'evil\.pth holds \S+, .*MMMAP_TRUST_CHECKPOINT=\S+evil\.pth') as error:
        load(path)
    assert '\n' not in str(error.value) and 'weights_only' not in str(error.value)
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_nothing_in_a_pickle_is_run(tmp_path, kind, protocol):
    path = evil_pickle(tmp_path / 'evil.pkl', tmp_path / 'marker', kind, protocol)
    for read in (unpickle, mmengine.load, lambda path: mmengine.load(Path(path))):
        with pytest.raises(RefusedFileError, match=r'evil\.pkl holds \S+,'):
            read(path)
    assert not (tmp_path / 'marker').exists()
    # Nor in a tensor, whose storage is a pickle within the pickle.
    storage = Path(evil_checkpoint(tmp_path / 'evil.pth', tmp_path / 'marker', kind, True)).read_bytes()
    inner = Call(torch.storage._load_from_bytes, storage)
    Path(path).write_bytes(pickle.dumps([inner], protocol=protocol))
    with pytest.raises(RefusedFileError):
        unpickle(path)
    assert not (tmp_path / 'marker').exists()


def test_what_other_packages_allow_does_not_count(tmp_path):
    path = evil_checkpoint(tmp_path / 'evil.pth', tmp_path / 'marker')
    torch.serialization.add_safe_globals([open])
    try:
        with pytest.raises(RefusedFileError):
            load(path)
        assert open in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
    assert not (tmp_path / 'marker').exists()


CONTENT = dict(
    state_dict=dict(weight=torch.ones(2), mask=torch.full((3, 3), -torch.inf).triu(1)),
    message_hub=dict(loss=HistoryBuffer([1.0, 3.0], [1, 1]), best=np.float64(0.5), off=np.bool_(False)),
    meta=dict(
        dataset_meta=dict(classes=('cat', 'dog'), palette=[(1, 2, 3)], names=np.array(['a', 'bc']), ids={1, 2}),
        colours=np.arange(6, dtype=np.uint8).reshape(2, 3),
        seen=ConfigDict(a=dict(b=1)),
        big_endian=np.arange(3, dtype='>i4'),
        args=argparse.Namespace(lr=1, out=Path('out')),
    ),
    optimizer=dict(state={0: dict(step=torch.tensor(2.0))}, param_groups=[dict(betas=(0.9, 0.99), params=[0])]),
)


@pytest.mark.parametrize('form', ['archive', 'legacy', 'pickle'])
def test_what_checkpoints_and_predictions_hold(tmp_path, form):
    path = tmp_path / 'good'
    if form == 'pickle':
        mmengine.dump(CONTENT, path, file_format='pkl')
        loaded = unpickle(path)
    else:
        torch.save(CONTENT, path, _use_new_zipfile_serialization=form == 'archive')
        loaded = load_checkpoint(path)
    assert type(loaded['message_hub']['loss']) is HistoryBuffer
    assert loaded['message_hub']['loss'].statistics('mean') == 2.0
    assert loaded['meta']['dataset_meta']['names'].tolist() == ['a', 'bc']
    assert loaded['meta']['big_endian'].tolist() == [0, 1, 2]
    assert loaded['meta']['seen'].a.b == 1 and str(loaded['meta']['args'].out) == 'out'
    assert torch.equal(loaded['state_dict']['mask'], CONTENT['state_dict']['mask'])


@pytest.mark.parametrize('protocol', [0, 2, 5])
def test_containers_of_annotations(tmp_path, protocol):
    content = [defaultdict(list, {3: ['a.jpg']}), Counter('aab'), deque([1, 2], 3), defaultdict(int, {'cat': 1})]
    (tmp_path / 'info.pkl').write_bytes(pickle.dumps(content, protocol=protocol))
    loaded = mmengine.load(tmp_path / 'info.pkl')
    assert loaded == content and [type(one) for one in loaded] == [type(one) for one in content]
    assert loaded[0]['new'] == [] and loaded[3]['new'] == 0


@pytest.mark.parametrize('content', [defaultdict(list, {3: [1]}), deque([1, 2])])
def test_containers_that_torch_does_not_fill_are_refused_in_checkpoints(tmp_path, content):
    torch.save([content], tmp_path / 'containers.pth')
    with pytest.raises(RefusedFileError, match=rf'holds collections\.{type(content).__name__}, which is no data'):
        load(tmp_path / 'containers.pth')


def test_one_list_serves_archives_and_pickles(tmp_path, monkeypatch):
    part = ShardMetadata([0], [1])
    torch.save([part], tmp_path / 'one.pth')
    (tmp_path / 'one.pkl').write_bytes(pickle.dumps([part]))
    for read, name in ((load, 'one.pth'), (unpickle, 'one.pkl')):
        assert read(tmp_path / name)[0].shard_sizes == [1]
    # Allowed only where the process has imported it; reading imports nothing.
    monkeypatch.delitem(sys.modules, ShardMetadata.__module__)
    for read, name in ((load, 'one.pth'), (unpickle, 'one.pkl')):
        with pytest.raises(RefusedFileError, match=r'holds torch\.distributed\._shard\.metadata\.ShardMetadata'):
            read(tmp_path / name)
    assert ShardMetadata.__module__ not in sys.modules


def test_a_storage_within_a_checkpoint_is_read_by_the_same_rules(tmp_path):
    inner = Path(evil_checkpoint(tmp_path / 'inner.pth', tmp_path / 'marker')).read_bytes()
    torch.save([Call(torch.storage._load_from_bytes, inner)], tmp_path / 'outer.pth')
    with pytest.raises(RefusedFileError):
        load(tmp_path / 'outer.pth')
    assert not (tmp_path / 'marker').exists()


def test_names_of_numpy_before_its_second_version(tmp_path):
    content = pickle.dumps([np.arange(3), np.float32(1.5)], protocol=0).replace(b'numpy._core', b'numpy.core')
    (tmp_path / 'old.pkl').write_bytes(content)
    array, number = unpickle(tmp_path / 'old.pkl')
    assert array.tolist() == [0, 1, 2] and number == 1.5


def test_of_a_schedule_that_cycles_its_two_functions_are_allowed_and_nothing_else(tmp_path):
    for strategy in ('cos', 'linear'):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        schedule = OneCycleLR(optimizer, eta_max=1.0, total_steps=3, anneal_strategy=strategy)
        torch.save(dict(param_schedulers=[schedule.state_dict()]), tmp_path / 'cycle.pth')
        assert load(tmp_path / 'cycle.pth')['param_schedulers'][0]['anneal_func'] is schedule.anneal_func
    for name in ('__init__', '_get_value', 'build_iter_from_epoch'):
        torch.save([Call(getattr, OneCycleParamScheduler, name)], tmp_path / 'evil.pth')
        with pytest.raises(RefusedFileError, match=f'OneCycleParamScheduler,{name}'):
            load(tmp_path / 'evil.pth')


def test_functions_that_a_file_puts_into_statistics_are_left_out(tmp_path):
    buffer = HistoryBuffer([1.0], [1])
    state = buffer.__getstate__() | dict(statistics_methods=dict(mean=torch.nn.Parameter))
    torch.save(dict(hub=_Built(state)), tmp_path / 'evil.pth')
    assert load(tmp_path / 'evil.pth')['hub'].statistics('mean') == 1.0
    assert HistoryBuffer._statistics_methods['mean'] is not torch.nn.Parameter


class _Built:
    def __init__(self, state, kind=HistoryBuffer, *args):
        self.reduced = kind, args, state

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize('dtype', [object, [('a', 'i4')]])
def test_arrays_of_objects_and_records_are_refused(tmp_path, dtype):
    torch.save(dict(array=np.zeros(2, dtype)), tmp_path / 'array.pth')
    with pytest.raises(RefusedFileError, match=r'holds numpy\.dtype'):
        load(tmp_path / 'array.pth')


def _with_state(*opcodes):
    """A pickle of protocol 2 that gives states to what it has made before."""
    return b'\x80\x02' + b''.join(opcodes) + b'b.'


def _name(of):
    return f'c{of.__module__}\n{of.__qualname__}\n'.encode()


def _value(value):
    return pickle.dumps(value, protocol=2)[2:-1]


STATES = dict(
    a_class=_with_state(_name(PurePosixPath), _value((None, dict(mark=1)))),
    a_class_of_python=_with_state(_name(argparse.Namespace), _value((None, dict(__init__=1)))),
    a_function=_with_state(_name(codecs.encode), _value((None, dict(__defaults__=('utf-8',))))),
    a_path=_with_state(_value(PurePosixPath('a')), _value((None, dict(_str='b')))),
    a_method=_with_state(_value(OrderedDict(a=1)), _value(dict(items=1))),
    a_method_of_a_namespace=_with_state(_value(argparse.Namespace()), _value(dict(_get_kwargs=1))),
    a_member_of_all=_with_state(_value(MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT), _value(dict(mark=1))),
    no_class_of_the_list=_with_state(_value(slice(1)), _value(dict(start=1))),
)


@pytest.mark.parametrize('kind', STATES)
def test_a_state_changes_nothing_outside_of_the_file_and_no_method(tmp_path, kind):
    (tmp_path / 'evil.pkl').write_bytes(STATES[kind])
    with pytest.raises(UserError, match=r'evil\.pkl (holds|cannot be loaded)'):
        unpickle(tmp_path / 'evil.pkl')
    assert not hasattr(PurePosixPath, 'mark') and argparse.Namespace(a=1).a == 1
    assert not hasattr(MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT, 'mark')


def test_checkpoints_set_no_state_of_paths_and_of_members_of_all(tmp_path):
    for built in (
        _Built((None, dict(_str='b')), PurePosixPath, 'a'),
        _Built(dict(mark=1), MEM_FORMAT_ENCODING, MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT.value),
    ):
        torch.save([built], tmp_path / 'evil.pth')
        with pytest.raises(RefusedFileError, match=r'holds \S*(PurePosixPath|MEM_FORMAT_ENCODING)'):
            load(tmp_path / 'evil.pth')
    assert not hasattr(MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT, 'mark')


def test_states_of_plain_objects_are_kept(tmp_path):
    weights = OrderedDict(a=1)
    weights._metadata = dict(version=2)
    (tmp_path / 'good.pkl').write_bytes(pickle.dumps([weights, argparse.Namespace(lr=1, out=Path('out'))]))
    found, options = unpickle(tmp_path / 'good.pkl')
    assert found == weights and found._metadata == dict(version=2)
    assert vars(options) == dict(lr=1, out=Path('out'))


class _Layout:
    """Is pickled as numbers of eight bytes whose type has a state of its own."""

    def __init__(self, *state):
        self.state = 3, '<', *state

    def __reduce__(self):
        return np.dtype, ('f8', False, True), self.state


@pytest.mark.parametrize(
    'layout',
    [
        _Layout((np.dtype('f8'), (100,)), None, None, -1, -1, 0),
        _Layout(None, ('a',), dict(a=(np.dtype('f8'), 800)), -1, -1, 0),
        _Layout(None, None, None, -1, -1, 63),
    ],
    ids=['shape', 'fields', 'flags'],
)
@pytest.mark.parametrize('owner', ['type', 'array', 'number'])
def test_a_type_whose_layout_the_file_changes_is_refused(tmp_path, layout, owner):
    """Such an array reads memory that is not its own."""
    content = layout
    if owner == 'array':
        content = Call(np.ndarray, (2,), layout, bytearray(16))
    elif owner == 'number':
        content = Call(np.float64(0).__reduce__()[0], layout, bytes(8))
    torch.save([content], tmp_path / 'evil.pth')
    (tmp_path / 'evil.pkl').write_bytes(pickle.dumps([content]))
    for read, name in ((load, 'evil.pth'), (unpickle, 'evil.pkl')):
        with pytest.raises(RefusedFileError, match=r'holds numpy\.dtype\(d\)'):
            read(tmp_path / name)


def test_trust_is_for_one_file(tmp_path, monkeypatch, caplog):
    for name in ('one', 'other'):
        evil_checkpoint(tmp_path / f'{name}.pth', tmp_path / name)
        evil_pickle(tmp_path / f'{name}.pkl', tmp_path / f'{name}_pickle')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(safe_load.TRUST_VARIABLE, str(tmp_path / 'one.pth'))
    load('one.pth')
    assert (tmp_path / 'one').exists()
    with pytest.raises(RefusedFileError):
        load('other.pth')
    monkeypatch.setenv(safe_load.TRUST_VARIABLE, 'one.pkl')
    mmengine.load(tmp_path / 'one.pkl')
    assert (tmp_path / 'one_pickle').exists()
    # The folder of all files is none of a checkpoint.
    monkeypatch.setenv(safe_load.TRUST_VARIABLE, str(tmp_path))
    with pytest.raises(RefusedFileError):
        load('other.pth')
    with pytest.raises(RefusedFileError):
        unpickle('other.pkl')
    assert not (tmp_path / 'other').exists() and not (tmp_path / 'other_pickle').exists()


@pytest.mark.parametrize('content', [b'', b'<html>not found</html>', b'\x80\x02}q\x00.', b'PK\x03\x04' + bytes(40)])
def test_files_of_other_kinds(tmp_path, content):
    (tmp_path / 'file.pth').write_bytes(content)
    with pytest.raises(DamagedFileError, match=r'file\.pth (is|cannot)') as error:
        load(tmp_path / 'file.pth')
    assert '\n' not in str(error.value)
    with pytest.raises(FileNotFoundError, match='no such file'):
        load(tmp_path / 'nothing.pth')
    with pytest.raises(FileNotFoundError, match='a folder'):
        load(tmp_path)
    with pytest.raises(DamagedFileError, match=r'file\.pth cannot be loaded'):
        (tmp_path / 'file.pth').write_bytes(pickle.dumps([CONTENT], protocol=2)[:-20])
        unpickle(tmp_path / 'file.pth')


@pytest.mark.parametrize(
    ('content', 'culprit'),
    [
        ([1, 2], 'it holds a list'),
        (torch.ones(2), 'it holds a Tensor'),
        (dict(state_dict=[torch.ones(2)]), 'its state_dict is no dict'),
        (dict(state_dict={1: torch.ones(2)}), 'its state_dict is no dict'),
        (dict(state_dict=dict(a='text')), 'holds no tensor'),
        (dict(state_dict=dict(a=torch.ones(2), b=torch.tensor([1.0, torch.nan]))), r'state_dict\.b is not finite'),
        (dict(state_dict=dict(b=torch.tensor([0.5, torch.inf]))), r'state_dict\.b is not finite'),
        (dict(state_dict=dict(b=torch.tensor([torch.inf, torch.inf]))), r'state_dict\.b is not finite'),
        (dict(state_dict=dict(b=torch.tensor([1.0, torch.nan, -torch.inf]))), r'state_dict\.b is not finite'),
        (dict(b=torch.tensor(torch.nan).half()), 'b is not finite'),
        (dict(ema_state_dict=dict(b=torch.tensor(torch.nan))), r'ema_state_dict\.b'),
        (dict(optimizer=dict(state={3: dict(exp_avg=torch.tensor([torch.nan]))})), r'optimizer\.state\.3\.exp_avg'),
        (dict(optimizer=dict(generator=dict(state={0: [torch.tensor(torch.nan)]}))), r'optimizer\.generator'),
    ],
)
def test_contents_that_are_none(tmp_path, content, culprit):
    torch.save(content, tmp_path / 'bad.pth')
    with pytest.raises(UserError, match=rf'bad\.pth is .*{culprit}') as error:
        load_checkpoint(tmp_path / 'bad.pth')
    assert '\n' not in str(error.value)


def test_a_skipped_step_in_the_log_is_no_harm(tmp_path):
    content = dict(
        state_dict=dict(a=torch.ones(2), eight=torch.ones(2).to(torch.float8_e4m3fn), whole=torch.tensor([3])),
        message_hub=dict(norm=HistoryBuffer([torch.nan], [1]), last=torch.tensor(torch.nan)),
    )
    torch.save(content, tmp_path / 'good.pth')
    assert load_checkpoint(tmp_path / 'good.pth')['state_dict']['whole'] == 3
