"""The report: a run as one self-contained HTML page with latency, drops and classes over time."""
