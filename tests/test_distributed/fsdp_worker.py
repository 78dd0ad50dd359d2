"""One process of test_fsdp_checkpoints.py, started by torchrun: ``fsdp_worker.py WORK_DIR STATE_DICT_TYPE``.

Trains three epochs, then goes on to the fifth as ``--resume`` does.
"""

import sys

import torch
from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

import mmmap  # noqa: F401
from mmmap.engine.launch import build_runner, require_fit, set_resume
from mmmap.engine.process_group import leave_process_group


@MODELS.register_module()
class Linear(BaseModel):
    """A model of five weights."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 1)

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor') -> dict:
        """The loss of a batch."""
        return dict(loss=self.backbone(inputs).square().mean())


def config(work_dir: str, epochs: int) -> Config:
    """A run of some epochs of two steps."""
    return Config(
        dict(
            runner_type='FlexibleRunner',
            strategy=dict(type='FSDPStrategy', state_dict_cfg=sys.argv[2], model_wrapper=dict(use_orig_params=True)),
            model=dict(type='Linear'),
            work_dir=work_dir,
            train_dataloader=dict(
                batch_size=1,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=[dict(inputs=torch.full((4,), float(i))) for i in range(4)],
                collate_fn=dict(type='default_collate'),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
            default_hooks=dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=2)),
            default_scope='mmengine',
            launcher='pytorch',
            experiment_name=f'fsdp_{epochs}',
        )
    )


def main() -> None:
    """Train, and go on."""
    build_runner(config(sys.argv[1], 3), []).train()
    barrier()  # The first process names the last checkpoint.
    MessageHub._instance_dict.clear()
    cfg = config(sys.argv[1], 5)
    messages = set_resume(cfg, 'auto')
    runner = build_runner(cfg, messages)
    require_fit(runner, cfg.load_from)
    runner.train()
    print(messages[-1], f'ended at epoch {runner.epoch}, iteration {runner.iter}')
    leave_process_group()


if __name__ == '__main__':
    main()
