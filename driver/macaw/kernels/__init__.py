"""Kernels: how layers, losses and updates become programs."""

from .job import Workspace
from .step import inference_program, quantize_program, settling_program, training_program

__all__ = ["Workspace", "inference_program", "quantize_program", "settling_program", "training_program"]
