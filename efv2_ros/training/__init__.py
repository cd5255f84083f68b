"""Training of EfficientFormerV2 on a user's own classes, with timm, PyTorch and Accelerate."""
