"""INT8 on this machine: exact arithmetic against its kernels, and what each option of quantisation brings."""
