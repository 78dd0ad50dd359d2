"""Spoil configs at random and see whether ``tools/train.py`` trains, or ends with one line that names the key.

    python tests/campaign/mutate_configs.py [--number 300] [--jobs 2] [--show fine component not]

The configs are those of the repository, made small, on generated images; each mutant runs in a process of its own.
"""

import argparse
import math
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / folder) for folder in ('tests', 'tests/test_configs', 'tools'))]

from config_cases import read, shorten  # noqa: E402
from generated_data import write_digits, write_imagenet  # noqa: E402
from raw_shapes import write_shrec  # noqa: E402

WRONG_VALUES = (None, 'x', -1, 0, math.inf, [], {})
# What a Runner or a tool reads of a config: other names of a config file are its own variables.
READ = (
    'model', 'data_preprocessor', 'train_dataloader', 'val_dataloader', 'train_cfg', 'val_cfg', 'val_evaluator',
    'optim_wrapper', 'param_scheduler', 'default_hooks', 'custom_hooks', 'env_cfg', 'randomness', 'visualizer',
    'log_level', 'default_scope', 'auto_scale_lr',
)  # fmt: skip
CONFIGS = (
    'map/map_hybrid-digits_1xb64-coslr-16e_digits-28px.py',
    'map/benchmarks/map_hybrid-digits_1xb64-finetune-coslr-10e_digits-28px.py',
    'map/map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py',
    'map/benchmarks/map_hybrid-base-p16_8xb128-amp-coslr-100e_in1k.py',
    'pointmap/map_pointhybrid-mini_1xb32-coslr-200e_shrec16.py',
    'pointmap/pointhybrid-mini_1xb32-coslr-60e_shrec16.py',
)
OUTCOMES = {
    'fine': 'trains',
    'key': 'one line, names file and key',
    'component': 'one line, names file and component',
    'not': 'anything else',
}


class Mutation(NamedTuple):
    """A change of one place of a config."""

    kind: str
    #: Keys and indices from the top to the place.
    path: tuple[str | int, ...]
    #: What is written there, or the misspelt key.
    value: Any = None

    def __str__(self) -> str:
        return f'{self.kind} {dotted(self.path)} {self.value!r}'

    def apply(self, cfg: dict) -> None:
        """Change a config in place."""
        *above, last = self.path
        for step in above:
            cfg = cfg[step]
        if self.kind == 'remove':
            del cfg[last]
        elif self.kind == 'misspell key':
            cfg[self.value] = cfg.pop(last)
        else:
            cfg[last] = self.value


def dotted(path: tuple[str | int, ...]) -> str:
    """``model.pipeline[2].type`` of its keys and indices."""
    return ''.join(f'[{step}]' if isinstance(step, int) else f'.{step}' for step in path).lstrip('.')


def misspell(word: str) -> str:
    """The same word with two neighbouring letters swapped, or one left out where they are equal."""
    middle = max(1, len(word) // 2)
    swapped = word[: middle - 1] + word[middle : middle + 1] + word[middle - 1] + word[middle + 1 :]
    return swapped if swapped != word else word[:middle] + word[middle + 1 :] + 'q' * (len(word) == 1)


def places(part: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every key and index of a config, with its value."""
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list | tuple) else ()
    for step, value in items:
        if path or step in READ:
            yield (*path, step), value
            yield from places(value, (*path, step))


def mutations(cfg: dict) -> list[Mutation]:
    """All mutations of a config: wrong values, misspelt and removed keys, misspelt types."""
    found = []
    for path, value in places(cfg):
        found += [Mutation('set', path, wrong) for wrong in WRONG_VALUES if wrong != value]
        if isinstance(path[-1], str):
            found += [Mutation('remove', path), Mutation('misspell key', path, misspell(path[-1]))]
        if path[-1] == 'type' and isinstance(value, str):
            found.append(Mutation('misspell type', path, misspell(value)))
    return found


def small_config(name: str) -> dict:
    """A config of the repository that trains for one iteration on generated images in a second."""
    cfg = shorten(read(ROOT / 'configs' / name))
    model, arch = cfg.model, cfg.model.backbone.arch
    model.backbone.arch = arch | dict(embed_dim=16, num_heads=2, d_state=4)
    model.backbone.pop('init_cfg', None)
    if model.get('neck') and 'embed_dim' in model.neck:
        model.neck.update(embed_dim=16, num_heads=2, depth=1)
    for loader in ('train_dataloader', 'val_dataloader'):
        if cfg.get(loader):
            cfg[loader].update(batch_size=2, num_workers=0, persistent_workers=False)
            cfg[loader].dataset.indices = 2
    for hook in cfg.get('custom_hooks', []):
        for loader in ('bank_dataloader', 'query_dataloader'):
            if loader in hook:
                hook[loader].update(batch_size=8, num_workers=0, persistent_workers=False)
                hook[loader].dataset.indices = 24
    cfg.train_cfg.max_epochs = 1
    return {key: lists(value) for key, value in cfg._cfg_dict.to_dict().items() if key in (*READ, 'custom_imports')}


def lists(value: Any) -> Any:
    """The same with lists for tuples, which can be changed."""
    if isinstance(value, dict):
        return {key: lists(item) for key, item in value.items()}
    return [lists(item) for item in value] if isinstance(value, list | tuple) else value


def source(value: Any) -> str:
    """Python source of a value of a config."""
    if isinstance(value, dict):
        return '{' + ', '.join(f'{key!r}: {source(item)}' for key, item in value.items()) + '}'
    if isinstance(value, list | tuple):
        return '[' + ', '.join(map(source, value)) + ']'
    return f"float('{value}')" if isinstance(value, float) and not math.isfinite(value) else repr(value)


def _train(config: Path, output: Path) -> None:
    """Run ``tools/train.py`` on a config; its output goes to a file."""
    with open(output, 'w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch
    import train

    torch.set_num_threads(1)
    sys.argv = ['train.py', str(config), '--work-dir', str(config.with_suffix(''))]
    train.main()


def try_mutant(cfg: dict, mutation: Mutation | None, folder: Path, timeout: float = 120) -> tuple[str, str]:
    """Train with a spoilt config.

    Args:
        cfg (dict): The config; it is changed.
        mutation (Mutation | None): How it is spoilt.
        folder (Path): Where the config and its work directory go, a new one.
        timeout (float): Seconds after which it counts as hung.

    Returns:
        tuple[str, str]: One of ``OUTCOMES``, and the last line that was printed.
    """
    if mutation is not None:
        mutation.apply(cfg)
    folder.mkdir()
    config = folder / 'mutant.py'
    config.write_text(''.join(f'{key} = {source(value)}\n' for key, value in cfg.items()))
    process = multiprocessing.get_context('fork').Process(target=_train, args=(config, folder / 'output.txt'))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        return 'not', 'hangs'
    output = (folder / 'output.txt').read_text()
    lines = output.strip().splitlines() or ['']
    if process.exitcode == 0:
        # A key that nothing reads is fine where a line says so.
        told = [line for line in lines if mutation and str(mutation.value) in line and 'did you mean' in line]
        return 'fine', (told or [''])[0]
    if mutation is None or 'Traceback' in output or not lines[-1].startswith('error: ') or str(config) not in lines[-1]:
        return 'not', lines[-1]
    keys = [step for step in mutation.path if isinstance(step, str)]
    names = {keys[-1], str(mutation.value)} if 'misspell' in mutation.kind else {keys[-1]}
    if mutation.kind == 'misspell type':
        names = {mutation.value}
    if any(re.search(rf'(?<!\w){re.escape(name)}(?!\w)', lines[-1].replace(str(config), '')) for name in names):
        return 'key', lines[-1]
    parents = [dotted(mutation.path[:stop]) for stop in range(1, len(mutation.path))]
    return 'component' if any(parent in lines[-1] for parent in parents) else 'not', lines[-1]


def main() -> int:
    """Run the mutants and print what became of them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--number', type=int, default=300, help='mutants over all configs (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('--show', nargs='*', choices=list(OUTCOMES), default=['component', 'not'])
    args = parser.parse_args()
    import mmpretrain.models  # noqa: F401
    import train  # noqa: F401  Imported here once, for all the processes.

    configs = {name: small_config(name) for name in CONFIGS}
    mutants = [(name, mutation) for name, cfg in configs.items() for mutation in mutations(cfg)]
    mutants = random.Random(args.seed).sample(mutants, min(args.number, len(mutants)))
    counts, start = Counter(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_imagenet(folder / 'data/imagenet')
        write_digits(folder / 'data/digits')
        write_shrec(folder / 'data/shrec16.npz', 1024)
        os.chdir(folder)

        for name in CONFIGS:
            outcome, line = try_mutant(small_config(name), None, folder / Path(name).stem)
            if outcome != 'fine':
                print(f'error: {name} as it is does not train: {line}', file=sys.stderr)
                return 1
        # Forked, so that they have imported everything.
        with ProcessPoolExecutor(args.jobs, multiprocessing.get_context('fork')) as pool:
            tasks = [
                pool.submit(try_mutant, small_config(name), mutation, folder / str(number))
                for number, (name, mutation) in enumerate(mutants)
            ]
            for (name, mutation), task in zip(mutants, tasks, strict=True):
                outcome, line = task.result()
                counts[outcome] += 1
                if outcome in args.show:
                    print(f'{outcome:9} {Path(name).stem[:40]}: {mutation}\n          {line[:400]}', flush=True)
    print(f'{len(mutants)} mutants, {time.monotonic() - start:.0f} s')
    for outcome, meaning in OUTCOMES.items():
        print(f'{counts[outcome]:5} {meaning}')
    return int(counts['not'] > 0)


if __name__ == '__main__':
    sys.exit(main())
