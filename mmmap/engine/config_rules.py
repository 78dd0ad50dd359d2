"""Rules for the values of a config that mmengine and torch do not check, or check too late."""

import inspect
import math
import re
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

from mmengine.runner import Runner

#: The top-level keys that a Runner or a tool reads. All others are variables of the config.
TOP_LEVEL_KEYS = (
    *(name for name in inspect.signature(Runner.__init__).parameters if name not in ('self', 'cfg')),
    *('activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval', 'find_unused_parameters'),
    *('model_wrapper_cfg', 'runner_type', 'strategy', 'tta_model', 'tta_pipeline'),
)


class Rule(NamedTuple):
    """A rule for the values at some places of a config.

    Attributes:
        key (str): A regular expression for the whole key, with dots between keys and indices.
        test (Callable[[Any], bool]): Whether a value is allowed.
        expected (str): What is allowed, for the message.
    """

    key: str
    test: Callable[[Any], bool]
    expected: str


def _is_int(value: Any, low: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= low


def _is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    return (
        isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and low <= float(value) <= high
    )


def _is_dicts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        not isinstance(item, str | Real | list | tuple | None) for item in value
    )


def _kind(*kinds: type | None) -> Callable[[Any], bool]:
    return lambda value: any(value is None if kind is None else isinstance(value, kind) for kind in kinds)


_COUNT = (lambda value: _is_int(value, 1), 'a whole number from 1')
_COUNT_OR_NEVER = (lambda value: value == -1 or _is_int(value, 1), 'a whole number from 1, or -1')
_NATURAL = (lambda value: _is_int(value, 0), 'a whole number from 0')
_POSITIVE = (lambda value: _is_number(value, 0) and value > 0, 'a number above 0')
_NOT_NEGATIVE = (lambda value: _is_number(value, 0), 'a number from 0')
_SHARE = (lambda value: _is_number(value, 0, 1), 'a number from 0 to 1')
_NUMBER = (_is_number, 'a number')
_FLAG = (lambda value: isinstance(value, Integral) and value in (0, 1), 'True or False')
_DICT = (_kind(dict), 'a dict')
_DICT_OR_NONE = (_kind(dict, None), 'a dict or None')
_DICTS_OR_NONE = (lambda value: value is None or _is_dicts(value), 'a list of dicts or None')
_DICT_OR_DICTS = (
    lambda value: value is None or isinstance(value, dict) or _is_dicts(value),
    'a dict or a list of dicts',
)


def _optional(rule: tuple[Callable, str]) -> tuple[Callable, str]:
    return lambda value: value is None or rule[0](value), f'{rule[1]}, or None'


_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
_LOADER = r'(.*\.)?\w*dataloader'
_HOOK = r'(default_hooks\.\w+|custom_hooks\.\d+)'
_RULES = (
    Rule(
        r'(.*\.)?data_preprocessor\.(mean|std)',
        lambda value: value is None or (isinstance(value, list | tuple) and len(value) > 0),
        'a list of numbers, one for each channel',
    ),
    Rule(r'(.*\.)?data_preprocessor\.std\.\d+', *_POSITIVE),
    Rule(r'(.*\.)?data_preprocessor\.mean\.\d+', *_NUMBER),
    Rule(r'(.*\.)?data_preprocessor\.(to_rgb|bgr_to_rgb|rgb_to_bgr|non_blocking)', *_FLAG),
    # A negative number would build a part without layers, or raise an error that does not name the key.
    Rule(
        r'model\.(.*\.)?(depth|in_dim|embed_dims?|num_heads|num_groups|group_size|patch_size|in_channels|num_classes)',
        lambda value: not isinstance(value, Integral) or int(value) >= 0,
        _NATURAL[1],
    ),
    Rule('model', lambda value: not isinstance(value, str | Real | list | None), 'a dict'),
    Rule('(train|val|test)_dataloader', lambda value: isinstance(value, dict | None) and value != {}, 'a dict or None'),
    Rule(r'(train|val|test)_(dataloader|cfg)|optim_wrapper|visualizer|log_processor', *_DICT_OR_NONE),
    Rule('data_preprocessor|default_hooks|auto_scale_lr|strategy|model_wrapper_cfg', *_DICT_OR_NONE),
    Rule(r'env_cfg|randomness|env_cfg\.(mp_cfg|dist_cfg)', *_DICT),
    Rule(r'custom_hooks|visualizer\.vis_backends', *_DICTS_OR_NONE),
    Rule(r'default_hooks\.\w+', lambda value: not isinstance(value, str | Real | list), 'a dict or None'),
    Rule(r'param_scheduler|(val|test)_evaluator', *_DICT_OR_DICTS),
    Rule('param_scheduler', lambda value: value != {}, 'a dict with a type or a list of them'),
    Rule('log_level', lambda value: isinstance(value, Integral) or value in _LEVELS, f'one of {", ".join(_LEVELS)}'),
    Rule('work_dir|launcher|experiment_name', lambda value: value is None or _kind(str)(value), 'a name'),
    Rule(r'env_cfg\.cudnn_benchmark|randomness\.(deterministic|diff_rank_seed)|auto_scale_lr\.enable', *_FLAG),
    Rule(r'env_cfg\.mp_cfg\.opencv_num_threads', *_NATURAL),
    Rule(
        r'env_cfg\.mp_cfg\.mp_start_method',
        lambda value: value in ('fork', 'spawn', 'forkserver', None),
        "'fork', 'spawn' or 'forkserver'",
    ),
    Rule(r'env_cfg\.dist_cfg\.backend', _kind(str), 'a name such as nccl or gloo'),
    Rule(r'env_cfg\.dist_cfg\.timeout', *_POSITIVE),
    Rule(r'randomness\.seed', *_optional(_NATURAL)),
    Rule(r'auto_scale_lr\.base_batch_size', *_COUNT),
    Rule(rf'{_LOADER}\.dataset', lambda value: value != [] and not isinstance(value, str | Real | None), 'a dict'),
    Rule(r'model\.train_cfg\.augments', *_DICT_OR_DICTS),
    Rule(rf'{_LOADER}\.sampler', lambda value: not isinstance(value, str | Real | list | None), 'a dict'),
    Rule(rf'{_LOADER}\.batch_sampler', lambda value: not isinstance(value, str | Real | list), 'a dict or None'),
    Rule(rf'{_LOADER}\.collate_fn', lambda value: isinstance(value, dict) or callable(value), 'a dict with a type'),
    Rule(rf'{_LOADER}\.batch_size', *_COUNT),
    Rule(rf'{_LOADER}\.num_workers', *_NATURAL),
    Rule(rf'{_LOADER}\.prefetch_factor', *_optional(_COUNT)),
    Rule(rf'{_LOADER}\.timeout', *_NOT_NEGATIVE),
    Rule(rf'{_LOADER}\.(persistent_workers|pin_memory|drop_last)|.*sampler\.(shuffle|round_up)', *_FLAG),
    Rule(rf'{_LOADER}\.num_batch_per_epoch', *_optional(_COUNT)),
    Rule(r'.*\bdataset\.pipeline', _is_dicts, 'a list of dicts'),
    Rule(
        r'.*\bdataset\.indices', lambda value: isinstance(value, Integral | list | tuple | None), 'a number or a list'
    ),
    Rule(
        'train_cfg',
        lambda value: value is None or 'type' in value or ('max_epochs' in value) == bool(value.get('by_epoch')),
        'type, or by_epoch=True beside max_epochs, or max_iters',
    ),
    # Iterations are often written as 9e4.
    Rule(
        r'train_cfg\.(max_epochs|max_iters|val_interval)',
        lambda value: _is_number(value, 1) and value == int(value),
        _COUNT[1],
    ),
    Rule(r'train_cfg\.val_begin', *_NATURAL),
    Rule(r'train_cfg\.by_epoch', *_FLAG),
    Rule(r'optim_wrapper\.(.*\.)?optimizer', *_DICT),
    Rule(r'optim_wrapper\.(.*\.)?(paramwise_cfg|clip_grad)', *_DICT_OR_NONE),
    Rule(r'optim_wrapper\.(.*\.)?paramwise_cfg\.\w+_(mult|rate)', *_NOT_NEGATIVE),
    Rule(r'optim_wrapper\.(.*\.)?accumulative_counts', *_COUNT),
    Rule(r'optim_wrapper\.(.*\.)?clip_grad\.(max_norm|clip_value)', *_POSITIVE),
    Rule(r'optim_wrapper\.(.*\.)?optimizer\.(lr|weight_decay|momentum|dampening)', *_NOT_NEGATIVE),
    Rule(r'optim_wrapper\.(.*\.)?optimizer\.eps', *_NOT_NEGATIVE),
    Rule(
        r'optim_wrapper\.(.*\.)?optimizer\.betas',
        lambda value: isinstance(value, list | tuple) and all(_is_number(item, 0) and item < 1 for item in value),
        'numbers from 0 to below 1',
    ),
    Rule(
        r'optim_wrapper\.(.*\.)?dtype',
        lambda value: (
            value in ('float16', 'bfloat16', 'float32', 'float64', None)
            or not isinstance(value, str | Real | list | dict)
        ),
        "'float16' or 'bfloat16'",
    ),
    Rule(
        r'optim_wrapper\.(.*\.)?loss_scale',
        lambda value: value == 'dynamic' or isinstance(value, dict) or _POSITIVE[0](value),
        "a number above 0, a dict or 'dynamic'",
    ),
    # May be half an epoch with convert_to_iter_based.
    Rule(r'param_scheduler\.(.*\.)?begin', *_NOT_NEGATIVE),
    Rule(r'param_scheduler\.(.*\.)?(end|T_max|total_steps|total_iters|step_size)', *_optional(_POSITIVE)),
    Rule(r'param_scheduler\.(.*\.)?(eta_min|power|gamma|factor|start_factor|end_factor)', *_optional(_NUMBER)),
    Rule(r'param_scheduler\.(.*\.)?eta_min_ratio', *_optional(_SHARE)),
    Rule(r'param_scheduler\.(.*\.)?(by_epoch|convert_to_iter_based|verbose)', *_FLAG),
    Rule(rf'{_HOOK}\.(interval|log_interval|vis_interval|val_interval)', *_COUNT_OR_NEVER),
    Rule(rf'{_HOOK}\.(max_keep_ckpts)', *_COUNT_OR_NEVER),
    Rule(rf'{_HOOK}\.(by_epoch|save_optimizer|save_param_scheduler|save_last|log_metric_by_epoch)', *_FLAG),
    Rule(rf'{_HOOK}\.(patience)', *_COUNT),
    Rule(rf'{_HOOK}\.momentum', lambda value: _is_number(value, 0, 1) and 0 < value < 1, 'a number between 0 and 1'),
)
#: Each rule behind its compiled key.
RULES = tuple((re.compile(rule.key), rule) for rule in _RULES)

# mmengine reads these parts key by key, so that it ignores a misspelt key.
_KEYS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ('env_cfg', ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit')),
    (r'env_cfg\.mp_cfg', ('mp_start_method', 'opencv_num_threads')),
    ('auto_scale_lr', ('base_batch_size', 'enable')),
)
# The keys of mmengine's and our optimizer constructors; other constructors may have more.
_PARAMWISE = (
    *('lr_mult', 'decay_mult', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult'),
    *('dwconv_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate', 'custom_keys', 'layer_decay_rate', 'num_layers'),
)
#: The default hooks of mmengine's Runner; a misspelt name would add a second hook.
OWN_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
# The arguments of torch's init_process_group.
_GROUP = ('backend', 'init_backend', 'timeout', 'init_method', 'world_size', 'rank', 'group_name', 'device_id')
#: A compiled key, the keys that are read there, and how similar to one of them a misspelt key is at least, from 0 to 1.
KNOWN_KEYS: tuple[tuple[re.Pattern[str], tuple[str, ...], float], ...] = (
    *((re.compile(key), known, 0.0) for key, known in _KEYS),
    (re.compile('default_hooks'), (*OWN_HOOKS, 'visualization'), 0.85),
    (re.compile(r'env_cfg\.dist_cfg'), _GROUP, 0.8),
    (re.compile(r'optim_wrapper\.(.*\.)?paramwise_cfg'), _PARAMWISE, 0.85),
)
#: A compiled key, and the keys of which one must be there.
NEEDED_KEYS = (
    (re.compile('randomness'), ('seed',)),
    # A constructor may build several optimizers, each from its own key.
    (re.compile('optim_wrapper'), ('optimizer', 'constructor')),
    (re.compile(r'train_cfg'), ('max_epochs', 'max_iters', 'type')),
    (re.compile(r'model|visualizer'), ('type',)),
    (re.compile(rf'{_HOOK}|param_scheduler\.\d+|.*\bpipeline\.\d+|.*\bcollate_fn'), ('type',)),
)
