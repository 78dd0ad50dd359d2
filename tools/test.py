"""Test a trained model."""

import argparse

from mmmap.command_line import add_common_options, add_data_option


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Errors are one line; MMMAP_TRACEBACK=1 shows where they were raised.'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to this file')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="several views of each sample: the config's tta_pipeline, or sizes of the test's own",
    )
    parser.add_argument('--show-dir', metavar='DIR', help='draw the predictions of segmentors and detectors into DIR')
    add_data_option(parser)
    parser.add_argument(
        '--submission', metavar='DIR', help='write the labels of each scene into DIR, in the format of its benchmark'
    )
    add_common_options(parser)
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


from mmmap.engine.checkpoint_files import check_checkpoint_file
from mmmap.engine.data_option import use_test_folder
from mmmap.engine.error_report import one_line_errors
from mmmap.engine.evaluation_options import DumpPredictions, draw_predictions, enable_tta, write_submission
from mmmap.engine.launch import build_runner, load_config, require_fit
from mmmap.engine.process_group import leave_process_group
from mmmap.utils.errors import UserError


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        cfg = load_config(args)
    with one_line_errors(cfg):
        if cfg.get('test_dataloader') is None or cfg.get('test_cfg') is None:
            raise UserError(f'{args.config} has no test_dataloader or no test_cfg: nothing to test')
        if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
            raise UserError(f'--out: expected a .pkl file, got {args.out}')
        check_checkpoint_file(args.checkpoint)
        messages = [] if args.data is None else use_test_folder(cfg, args.data, args.checkpoint)
        if args.tta:
            messages += enable_tta(cfg)
        if args.show_dir is not None:
            draw_predictions(cfg, args.show_dir)
        if args.submission is not None:
            write_submission(cfg, args.submission)
        cfg.load_from, cfg.resume = args.checkpoint, False
        runner = build_runner(cfg, messages)
        require_fit(runner, args.checkpoint)
        _ = runner.test_loop
        if args.out is not None:
            runner.test_evaluator.metrics.append(DumpPredictions(out_file_path=args.out))
    with one_line_errors(cfg, show_traceback=True):
        runner.test()
    leave_process_group()


if __name__ == '__main__':
    main()
