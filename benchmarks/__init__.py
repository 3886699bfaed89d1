"""What hpc-bridge costs, as ratios against named baselines: ``python -m benchmarks``."""
