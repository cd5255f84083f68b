"""What a command does with SIGINT at its start: put one of these before it."""

SIGINT_DEFAULT = ("env", "--default-signal=INT")
"""As in a terminal, whatever the test run was started with."""

SIGINT_IGNORED = ("env", "--ignore-signal=INT")
"""As a shell script starts `command &`."""
