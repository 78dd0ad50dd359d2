"""The sections of ``tools/benchmarks/gpu_report.py``."""
