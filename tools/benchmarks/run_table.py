"""Run a table of the paper: pretrain every row, train its backbone on labels, evaluate, write a report.

    python tools/benchmarks/run_table.py pretraining --track mini --seeds 2 --data DIR

An interrupted run continues when it is started again; finished rows are not run again. The rows, their configs and the
paper's figures are in tools/benchmarks/table/rows.py.
"""

import argparse
import fcntl
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from table.rows import EVALUATIONS, TABLES, TRACKS

from mmmap.command_line import COMPILE_MODES, CfgOptions


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('table', help=f'one of {", ".join(TABLES)}')
    add('--track', choices=list(TRACKS), default='mini', help='; '.join(f'{k}: {v}' for k, v in TRACKS.items()))
    add('--seeds', type=int, default=1, help='number of seeds, 0, 1, ..., of every row (default: 1)')
    add('--first-seed', type=int, default=0, metavar='SEED', help='count the seeds from this one (default: 0)')
    add('--rows', nargs='+', metavar='ROW', help='only these rows')
    add('--evaluate', nargs='+', choices=EVALUATIONS, default=['finetune'], help='(default: finetune)')
    add('--epochs', nargs=2, type=int, metavar=('PRETRAIN', 'FINETUNE'), help='rescale the schedules')
    options = dict(nargs='+', action=CfgOptions, metavar='KEY=VALUE', default={})
    add('--options-pretrain', **options, help='settings of every pretraining, as --cfg-options of train.py')
    add('--options-finetune', **options, help='settings of every fine-tuning')
    add('--data', type=Path, metavar='DIR', help='images DIR/{train,test}/CLASS/* instead of those of the configs')
    add('--images', type=int, help='number of training images, evenly over the classes, the same in all rows')
    add(
        '--split',
        choices=['test', 'val'],
        default='test',
        help='val: evaluate on a tenth of the training images, held out, to choose hyper-parameters',
    )
    add('--jobs', type=int, default=1, help='rows to run side by side, on the GPUs in turn (default: 1)')
    add('--gpus', type=int, default=1, help='GPUs, or processes, of each training, through dist_train.sh (default: 1)')
    add(
        '--compile',
        nargs='?',
        const='default',
        choices=list(COMPILE_MODES),
        help='compile the model of each training, as train.py does',
    )
    add('--slurm', metavar='PARTITION', help='start each training with slurm_train.sh')
    add('--out', type=Path, help='folder of the runs and reports (default: work_dirs/tables/TRACK)')
    add('--restart', action='store_true', help='delete runs with other settings instead of stopping')
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import torch
from table.compose import ROOT, Request, compose
from table.data import ConfigData, FolderData
from table.progress import Progress
from table.report import write_report
from table.rows import Row
from table.run import Launcher, Run, Runner, refuse_other_settings

from mmmap.engine.error_report import INTERRUPTED, one_line_errors
from mmmap.engine.preemption import PREEMPTED_STATUS, STOP_SIGNALS, Preempted
from mmmap.utils.benchmark import describe_machine
from mmmap.utils.errors import UserError


def choose_rows(table: str, track: str, names: list[str] | None) -> list[Row]:
    """The rows of a table on a track, all or the named ones.

    Raises:
        UserError: If the table or a row is unknown.
    """
    if table not in TABLES:
        raise UserError(f'unknown table {table!r}: choose from {", ".join(TABLES)}')
    rows = [row for row in TABLES[table] if track in row.recipes]
    known = [row.name for row in rows]
    for name in names or ():
        if name not in known:
            raise UserError(f'unknown row {name!r}: table {table} has {", ".join(known)} on the {track} track')
    return [row for row in rows if names is None or row.name in names]


def make_launcher(args: argparse.Namespace) -> Launcher:
    """How the trainings are started, with what the report tells of them."""
    threads = torch.get_num_threads()
    shared = args.jobs * args.gpus > 1 and 'OMP_NUM_THREADS' not in os.environ
    if shared:
        threads = max(1, (os.cpu_count() or 1) // (args.jobs * args.gpus))
    machine = describe_machine(seed=0, threads=threads)
    for key in ('seed', 'load'):
        machine.pop(key)
    changed = {**{f'pretrain {key}': value for key, value in args.options_pretrain.items()},
               **{f'finetune {key}': value for key, value in args.options_finetune.items()}}  # fmt: skip
    facts = dict(machine=machine, jobs=args.jobs, options=changed)
    facts['command'] = shlex.join(['python', 'tools/benchmarks/run_table.py', *sys.argv[1:]])
    git = ['git', '-C', str(ROOT), 'describe', '--always', '--dirty', '--exclude=*']
    found = subprocess.run(git, capture_output=True, text=True)
    facts['commit'] = found.stdout.strip() if found.returncode == 0 else None
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    devices = visible.split(',') if visible else map(str, range(torch.cuda.device_count()))
    return Launcher(args.gpus, args.slurm, threads if shared else None, facts, args.compile, tuple(devices))


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Refuse to work in a folder in which another of us does."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / '.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f'another run_table.py is at work in {out}: wait for it or use another --out') from None
        yield


def run_table(args: argparse.Namespace) -> int:
    """Run the table; the exit status."""
    for name in ('seeds', 'jobs', 'gpus', 'images'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f'--{name} {getattr(args, name)}: must be positive')
    if args.first_seed < 0:
        raise UserError(f'--first-seed {args.first_seed}: must not be negative')
    if args.epochs and min(args.epochs) < 1:
        raise UserError(f'--epochs {args.epochs[0]} {args.epochs[1]}: both must be positive')
    rows = choose_rows(args.table, args.track, args.rows)
    out = (args.out or Path('work_dirs/tables', args.track)).resolve()
    with only_one(out):
        if args.data is None:
            data = ConfigData(args.images, args.split)
        else:
            data = FolderData(args.data, args.images, args.split, out / 'data')
        evaluate, epochs = tuple(args.evaluate), tuple(args.epochs) if args.epochs else None
        options = args.options_pretrain, args.options_finetune
        request = Request(args.track, data, evaluate, epochs, *options, args.gpus)
        # All rows with the first seed come first: a table with one seed is worth more than a row with all.
        runs = [
            Run(row.name, seed, compose(row, seed, out / 'runs' / row.name / f'seed{seed}', request))
            for seed in range(args.first_seed, args.first_seed + args.seeds)
            for row in rows
        ]
        for message in refuse_other_settings(runs, args.restart):
            print(message)

        failures: list[str] = []

        def report() -> None:
            table = choose_rows(args.table, args.track, None)
            write_report(args.table, args.track, table, out / 'runs', out / args.table, failures)

        def done(run: Run) -> None:
            accuracies = [f'{s.name} {s.result()["accuracy"]:.2f} %' for s in run.stages if s.name != 'pretrain']
            print(f'done: {run}: {", ".join(accuracies)}', flush=True)
            report()

        runner = Runner(make_launcher(args))
        with Progress(runner, runs, args.jobs) as progress:
            failures += runner.run_all(runs, args.jobs, progress.tick, done)
        report()
    if (out / args.table / 'report.md').is_file():
        print(f'report: {out / args.table / "report.md"}')
    if not failures:
        return 0
    return PREEMPTED_STATUS if runner.only_stopped else 1


def _stop(number: int, frame: object) -> None:
    """Let the trainings save and end, and say so to the scheduler that sent this signal."""
    for other in STOP_SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Preempted


def main() -> None:
    """Run the tool."""
    args = parse_args()
    for number in set(STOP_SIGNALS) - {signal.SIGINT}:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    with one_line_errors():
        try:
            status = run_table(args)
        except Preempted:
            print('stopped: what ran is saved, the same command goes on from here', file=sys.stderr)
            raise
        except KeyboardInterrupt:
            print('interrupted: the same command goes on from here', file=sys.stderr)
            status = INTERRUPTED
    sys.exit(status)


if __name__ == '__main__':
    main()
