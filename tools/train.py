"""Train or pretrain a model."""

import argparse
import os
import signal
import sys

# Signals from schedulers. Before the training starts there is nothing to save, but the exit status must not be that of
# a crash. PreemptionHook handles them from then on.
SCHEDULER_SIGNALS = [getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1', 'SIGHUP') if hasattr(signal, name)]


def _leave(number: int, frame: object) -> None:
    # Does the same as mmmap.engine.preemption, which is not imported yet.
    marker = os.environ.get('MMMAP_PREEMPTED_FILE')
    if marker and number != signal.SIGUSR1:
        # dist_train.sh forwards SIGUSR1. Other signals come from torchrun, which ends all processes if one fails.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    os.write(2, f'{signal.Signals(number).name} before the training: nothing to save; start the same again.\n'.encode())
    if marker:
        with open(marker, 'w') as file:
            file.write('preempted\n')
    os._exit(0 if marker else 75)


# mmmap.engine reads this: the handler is only for the start.
_leave.for_the_start = True

if __name__ == '__main__':
    for _signal in SCHEDULER_SIGNALS:
        # nohup ignores signals, which is kept; dist_train.sh ignores SIGUSR1 until here.
        if _signal == signal.SIGUSR1 or signal.getsignal(_signal) is not signal.SIG_IGN:
            signal.signal(_signal, _leave)

from mmmap.command_line import COMPILE_MODES, add_common_options, add_data_option


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Errors are one line; MMMAP_TRACEBACK=1 shows where they were raised.'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        action='append',
        metavar='CHECKPOINT',
        help='continue from this checkpoint; without a value, from the last complete one in the work directory. Given '
        'both, as by slurm_train.sh, the checkpoint is used only if the directory has none',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--compile',
        nargs='?',
        const='default',
        choices=list(COMPILE_MODES),
        help="compile encoder and decoder with torch.compile in this mode; 'reduce-overhead' is for small models",
    )
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate by batch size / base_batch_size'
    )
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    add_data_option(parser)
    add_common_options(parser)
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()

from mmmap.engine.data_option import use_folder
from mmmap.engine.error_report import one_line_errors
from mmmap.engine.hooks import PreemptionHook
from mmmap.engine.last_batch_check import check_last_batch
from mmmap.engine.launch import (
    build_runner,
    enable_amp,
    enable_compile,
    load_config,
    require_fit,
    set_resume,
)
from mmmap.engine.preemption import Preempted
from mmmap.engine.process_group import leave_process_group
from mmmap.engine.schedules import end_short_schedules
from mmmap.utils.errors import UserError


def _set_signals(handler: signal.Handlers) -> None:
    for number in SCHEDULER_SIGNALS:
        if signal.getsignal(number) is _leave:
            signal.signal(number, handler)


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        cfg = load_config(args)
    with one_line_errors(cfg):
        if cfg.get('train_dataloader') is None or cfg.get('train_cfg') is None:
            raise UserError(f'{args.config} has no train_dataloader or no train_cfg: nothing to train')
        if args.no_validate:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        messages = [] if args.data is None else use_folder(cfg, args.data, ('train', 'val', 'bank', 'query'))
        if args.amp:
            enable_amp(cfg)
        if args.compile:
            enable_compile(cfg, args.compile)
        if args.auto_scale_lr:
            if (cfg.get('auto_scale_lr') or {}).get('base_batch_size') is None:
                raise UserError(f'--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size')
            cfg.auto_scale_lr.enable = True
        # The config may also ask to resume.
        given = args.resume or ([cfg.get('load_from') or 'auto'] if cfg.get('resume') else [])
        files = [checkpoint for checkpoint in given if checkpoint != 'auto']
        resume = ['auto', *files[-1:]] if 'auto' in given else files[-1:]
        messages += set_resume(cfg, *resume) if resume else []
        runner = build_runner(cfg, messages)
        if cfg.get('resume'):
            require_fit(runner, cfg.load_from)
        # Builds the data sets, so that errors of the config are told before the training.
        check_last_batch(runner)
        for message in end_short_schedules(runner):
            runner.logger.warning(message)
        if cfg.get('val_dataloader') is not None:
            _ = runner.val_loop
    status = 0
    with one_line_errors(cfg, show_traceback=True):
        if not any(isinstance(hook, PreemptionHook) for hook in runner.hooks):
            _set_signals(signal.SIG_DFL)
        try:
            runner.train()
        except Preempted as stop:
            status = stop.code
    # All files are written: signals must not change the exit status.
    _set_signals(signal.SIG_IGN)
    leave_process_group(status)
    if status:
        sys.exit(status)


if __name__ == '__main__':
    main()
