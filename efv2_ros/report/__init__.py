"""A run as one self-contained HTML page: latency, drops, and which class was seen when."""
