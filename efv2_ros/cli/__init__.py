"""The command line `efv2`: one module per command."""
