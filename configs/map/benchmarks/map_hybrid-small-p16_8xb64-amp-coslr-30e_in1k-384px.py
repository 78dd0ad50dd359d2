_base_ = './map_hybrid-base-p16_8xb64-amp-coslr-30e_in1k-384px.py'

load_from = 'work_dirs/map_hybrid-small-p16_8xb128-amp-coslr-100e_in1k/epoch_100.pth'
model = dict(backbone=dict(arch='small', drop_path_rate=0.1))
