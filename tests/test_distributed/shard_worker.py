"""One of two processes of test_shard_epochs.py, started by torchrun: ``shard_worker.py SHARDS``."""

import os
import sys
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.runner import Runner

import mmmap  # noqa: F401  It registers the data set.


def main() -> None:
    """Two epochs of each sampler; writes which images came, with their labels and sums of pixels."""
    shards = Path(sys.argv[1])
    torch.distributed.init_process_group('gloo')
    seen = {}
    for name, options in {'DefaultSampler': {}, 'ShardSampler': dict(window=2)}.items():
        loader = Runner.build_dataloader(
            dict(
                batch_size=2,
                num_workers=2,
                sampler=dict(type=name, **options),
                collate_fn=dict(type='pseudo_collate'),
                dataset=dict(
                    type='ImageShards', shards=str(shards), pipeline=[dict(type='LoadImageChecked', on_error='raise')]
                ),
            ),
            seed=3,
        )
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            seen[name, epoch] = [
                (index, label, int(img.sum()))
                for batch in loader
                for index, label, img in zip(batch['sample_idx'], batch['gt_label'], batch['img'], strict=True)
            ]
    torch.save(seen, shards / f'rank{get_rank()}.pth')


if __name__ == '__main__':
    main()
    torch.distributed.barrier()
    # A gloo group that is taken down while the interpreter ends may hang.
    os._exit(0)
