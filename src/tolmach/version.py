"""The version of tolmach, which every part may name without loading the package's other names."""

__all__ = ["__version__"]

__version__ = "0.1.0"
