"""The sections of ``tools/benchmarks/gpu_report.py``."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NAMES = ('tiny', 'small', 'base')
