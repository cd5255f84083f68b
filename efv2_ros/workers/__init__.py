"""Where many tasks run: in processes of this machine, or on a Dask cluster."""
