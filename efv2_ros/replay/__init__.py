"""Offline replay of bags, and its runs: as files, as bags, compared with golden ones."""
