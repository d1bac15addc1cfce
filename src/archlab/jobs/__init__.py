"""Runs jobs, each exactly once: the executor contract, the executors and the scheduler."""
