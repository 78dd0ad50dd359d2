_base_ = './map_hybrid-base-p16_8xb64-amp-coslr-30e_in1k-384px.py'

load_from = 'work_dirs/map_hybrid-large-p16_8xb128-amp-coslr-50e_in1k/epoch_50.pth'
model = dict(backbone=dict(arch='large', drop_path_rate=0.2, with_cp=True))
