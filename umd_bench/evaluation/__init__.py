"""What a trained model is worth: probes of its representation, scores of its samples."""

from umd_bench.evaluation.generation import run_generate
from umd_bench.evaluation.probes import run_probe
from umd_bench.evaluation.result import StageResult

__all__ = ["StageResult", "run_generate", "run_probe"]
