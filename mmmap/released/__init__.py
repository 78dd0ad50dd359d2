"""Checkpoints of the released MAP, Mamba-R and PointMAP code, and how to turn them into ours."""
