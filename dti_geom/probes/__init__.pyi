from .learned import LearnedVector, learned_vectors
from .measuring import Measurement, Measurements, measure, measure_all, measure_model
from .registry import PROBES, Probe

__all__ = [
    "PROBES",
    "LearnedVector",
    "Measurement",
    "Measurements",
    "Probe",
    "learned_vectors",
    "measure",
    "measure_all",
    "measure_model",
]
