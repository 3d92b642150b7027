"""Training of the shipped demonstration model; the only part of the project that needs PyTorch."""
