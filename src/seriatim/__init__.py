"""seriatim: exact-likelihood autoregressive models in PyTorch."""

__version__ = "0.1.0"
