"""One of two processes of test_resumed_run.py, started by torchrun: ``resume_worker.py FOLDER``."""

import os
import sys
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from mmengine.config import Config  # noqa: E402
from tiny_run import config, run, weights  # noqa: E402

from mmmap.engine.cpu_config import adapt_to_cpu  # noqa: E402
from mmmap.engine.process_group import init_cpu_process_group  # noqa: E402


def on_this_machine(cfg: Config) -> Config:
    """The config of a process under torchrun."""
    cfg.launcher = 'pytorch'
    cfg.env_cfg = dict(dist_cfg=dict(backend='gloo'))
    adapt_to_cpu(cfg)
    return cfg


def main() -> None:
    """A run that is interrupted between two steps and goes on, one that is not, and the start of one."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    # Three batches a process in an epoch, a step every two; the checkpoint of an epoch's end lies between two steps.
    changes = dict(optim_wrapper__accumulative_counts=2, train_dataloader__dataset__count=12)
    first = on_this_machine(config(folder / 'parts', **changes))
    init_cpu_process_group(first)
    runner, whole = run(on_this_machine(config(folder / 'whole', **changes)))
    final = weights(runner)
    run(first, stop_after=4, save=False)
    runner, second = run(first, folder / 'parts' / 'epoch_1.pth')
    same = all(torch.equal(value, final[name]) for name, value in runner.model.state_dict().items())
    same &= second.losses == {key: whole.losses[key] for key in range(3, 9)}
    # Losses of the ranks differ: their samples and random numbers do.
    torch.save(dict(same=same, losses=whole.losses), folder / f'rank{os.environ["RANK"]}.pth')
    run(on_this_machine(config(folder / 'start')), stop_after=5)


if __name__ == '__main__':
    main()
    torch.distributed.barrier()
    # A gloo group that is taken down while the interpreter ends may hang.
    os._exit(0)
