"""Write the features of pictures: one vector of the frozen backbone for each, with the names of the files.

A file .npz holds `features` (N, C) float32 and `files` (N). A file .npy holds the features, and .txt beside it the
names.
A file .parquet has both, and needs pyarrow. A second start goes on where the first one was interrupted.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``mmmap features``."""
    parser.add_argument('config', help='a config file, or the name of an installed one, such as mmmap::map/...')
    parser.add_argument('checkpoint', help='its checkpoint (.pth)')
    parser.add_argument('inputs', nargs='+', help='pictures, and folders of them')
    parser.add_argument('-o', '--out', default='features.npz', help='.npz, .npy or .parquet (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=32, help='pictures at a time (default: %(default)s)')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: a GPU if there is one)')


def run(args: argparse.Namespace) -> None:
    """Run ``mmmap features``."""
    import torch
    from tqdm import tqdm

    from mmmap.apis.feature_files import FeatureFile
    from mmmap.apis.prediction import continue_results, features_of, find_pictures, load_model
    from mmmap.engine.config_file import read_config
    from mmmap.engine.error_report import one_line_errors
    from mmmap.utils.errors import UserError

    with one_line_errors():
        cfg = read_config(args.config)
        pictures = find_pictures(args.inputs)
        device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
        faulty: list[str] = []

        def report(path: str, error: Exception) -> None:
            faulty.append(path)
            tqdm.write(f'left out: {error}')

        with FeatureFile(args.out) as file:
            continue_results(file.mark, cfg, args.checkpoint)
            model = load_model(cfg, args.checkpoint, device)
            left = {path: name for path, name in pictures if name not in file.names}
            with tqdm(total=len(left), unit='picture') as bar:
                for path, feature in features_of(model, cfg, list(left), args.batch_size, report):
                    file.add(left[path], feature)
                    bar.update()
        print(f'{args.out}: {len(file.names)} features of {file.width} numbers')
        if faulty:
            raise UserError(f'{len(faulty)} of {len(pictures)} pictures could not be used, first {faulty[0]}')
