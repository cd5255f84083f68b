"""Live replay: play a bag to running nodes and record what a classifier makes of it."""
