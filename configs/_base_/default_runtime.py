# Registers everything of mmmap; bare type names then resolve under any default_scope.
custom_imports = dict(imports=['mmmap'], allow_failed_imports=False)
default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Writes checkpoints whole or not at all.
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3),
    # Skips steps that are not finite, and stops if they go on; no such checkpoint is written.
    guard=dict(type='NonFiniteGuardHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Saves when a scheduler or Ctrl-C stops the run.
    preemption=dict(type='PreemptionHook'),
    # A resumed run is the run that was never interrupted, and settings that have changed since are said and obeyed.
    resume=dict(type='ResumeHook'),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
