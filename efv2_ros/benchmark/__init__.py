"""`efv2 bench` and `efv2 perf`: measurements, each beside a baseline from the same run."""
