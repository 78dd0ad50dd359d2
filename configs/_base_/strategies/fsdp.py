# Weights, gradients and optimizer states are split over the GPUs of the job, block by block, through mmengine's
# FlexibleRunner. Needs a launcher: tools/dist_train.sh or tools/slurm_train.sh.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    # Checkpoints in one file, as without FSDP, so that a later training can start from them.
    state_dict_cfg='full',
    model_wrapper=dict(auto_wrap_policy='mmmap.engine.strategies.wrap_blocks'),
)
