"""The parity ladder: from torch to every engine of this machine, rung by rung, and the tensor where one breaks."""
