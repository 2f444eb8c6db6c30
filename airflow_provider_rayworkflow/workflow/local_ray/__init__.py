"""The local Ray: one for each machine, user and Python environment, which outlives its callers.

A *keeper* is a process in a session of its own. It starts Ray as the driver of a cluster whose
processes end with it, starts a manager for each storage that a caller asks for, and ends itself and
Ray when both have been idle for a while. Callers and the keeper meet in a *state folder* that only
this user can use; a caller never connects to Ray.

Nothing here imports Ray or Airflow: the keeper is told by an import path what a cluster is
(:class:`.cluster.LocalCluster`).
"""
