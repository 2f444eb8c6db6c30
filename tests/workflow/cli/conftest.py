"""A machine of its own for each test that starts a local Ray."""

from local_rays import machine

__all__ = ["machine"]
