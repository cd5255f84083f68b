"""The X5's BPU through libdnn.so: the C interface, its tensors, the runtime."""
