"""One process of test_guard.py, started by torchrun: ``guard_worker.py FOLDER``."""

import itertools
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.dist import get_rank
from mmengine.runner import FlexibleRunner

import mmmap  # noqa: F401
from mmmap.utils.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1]))

from guard_runs import BadGradient, Net, make_cfg, make_runner, same, state_of, whole

NAN, INF = float('nan'), float('inf')
ENV = dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='gloo')), log_level='ERROR')
DDP = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None, find_unused_parameters=True)
ADAM = dict(optimizer=dict(type='AdamW', lr=0.01, fused=True))


class SpoilsOneChannel(Net):
    """In its fourth call the gradient of the first row of a weight is infinite, which is one process's share."""

    def features(self, x):
        x = self.body(x)
        if self.calls == 3 and x.requires_grad:
            x.register_hook(lambda grad: torch.cat([torch.full_like(grad[:, :1], INF), grad[:, 1:]], 1))
        return self.norm(x)


class Fingerprints(BadGradient):
    """The weights of this process around each iteration: FSDP's optimizer makes its state on the way."""

    def before_train(self, runner):
        self.runner = runner
        self.states = [self._weights(runner)]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.states.append(self._weights(runner))

    @staticmethod
    def _weights(runner):
        return {name: param.detach().clone() for name, param in runner.model.named_parameters()}


def moves(states: list[dict]) -> list[bool]:
    return [len(same(one, other)) > 0 for one, other in itertools.pairwise(states)]


def with_ddp(folder: Path, model: Net, hook: BadGradient, **guard) -> tuple[list[bool], str]:
    """Which iterations changed something, and how the run ended."""
    torch.manual_seed(0)
    runner = make_runner(
        folder,
        model,
        guard,
        [dict(type='EMAHook'), hook],
        epochs=2,
        optim_wrapper=ADAM,
        cfg=dict(model_wrapper_cfg=DDP),
        **ENV,
    )
    try:
        runner.train()
        end = 'finished'
    except UserError as error:
        end = str(error)
    assert all(value.isfinite().all() for value in state_of(runner).values())
    assert whole(runner) is model
    return moves(hook.states), end


def main(folder: Path) -> None:
    """Let rank 0 save what each process saw."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    rank = get_rank()
    found = {}
    found['loss'] = with_ddp(folder / 'loss', Net(bad_loss={2: NAN} if rank == 1 else {}), BadGradient())
    found['constant'] = with_ddp(folder / 'constant', Net(bad_constant={2: NAN} if rank == 1 else {}), BadGradient())
    # One process's own gradient, before it is averaged.
    found['gradient'] = with_ddp(folder / 'gradient', Net(), BadGradient({1: INF} if rank == 0 else {}))
    bad = dict.fromkeys(range(2, 9), NAN) if rank == 1 else {}
    found['stop'] = with_ddp(folder / 'stop', Net(bad_loss=bad), BadGradient(), max_in_a_row=2)

    hook = Fingerprints()
    torch.manual_seed(0)
    cfg = make_cfg(folder / 'fsdp', SpoilsOneChannel(), {}, [hook], epochs=2, optim_wrapper=ADAM, **ENV)
    full = dict(
        state_dict_type='FULL_STATE_DICT',
        state_dict_config=dict(type='FullStateDictConfig', rank0_only=True),
        optim_state_dict_config=dict(type='FullOptimStateDictConfig', rank0_only=True, offload_to_cpu=False),
    )
    cfg['strategy'] = dict(
        type='FSDPStrategy', model_wrapper=dict(device_id='cpu', use_orig_params=True), state_dict_cfg=full
    )
    FlexibleRunner(**cfg).train()
    found['fsdp'] = (moves(hook.states), 'finished')

    everything = [None] * dist.get_world_size()
    dist.all_gather_object(everything, found)
    if rank == 0:
        torch.save(everything, folder / 'result.pth')
    dist.barrier()
    # As in gradient_worker.py: taking a gloo group down can deadlock.
    os._exit(0)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
