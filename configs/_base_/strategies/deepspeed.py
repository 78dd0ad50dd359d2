# ZeRO stage 1: optimizer states are split over the GPUs of the job, through mmengine's FlexibleRunner. Needs
# `pip install deepspeed` and a launcher: tools/dist_train.sh or tools/slurm_train.sh.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='DeepSpeedStrategy',
    bf16=dict(enabled=True),
    inputs_to_half=['inputs'],
    zero_optimization=dict(stage=1, overlap_comm=True, contiguous_gradients=True),
)
