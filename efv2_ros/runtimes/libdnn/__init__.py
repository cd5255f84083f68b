"""Runtime `libdnn`: the C interface of libdnn.so, its tensors, and the runtime itself."""
