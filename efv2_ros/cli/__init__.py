"""`efv2`, the command line: one module a command."""
