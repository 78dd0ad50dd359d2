_base_ = './map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py'

model = dict(backbone=dict(arch='large'))
train_dataloader = dict(batch_size=128)
