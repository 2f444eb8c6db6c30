"""How fast it is: see docs/performance.md."""
