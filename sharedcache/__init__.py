"""The coordinator that makes a shared image cache safe to clean."""

__version__ = "0.1.0"
