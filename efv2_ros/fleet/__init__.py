"""Replay of fleets of bags: any number of them, by any number of processes."""
