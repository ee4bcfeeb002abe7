"""Visual attention consistency for multi-label image classification, on PyTorch Lightning and Hydra."""

__version__ = "0.1.0"
