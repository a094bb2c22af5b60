"""Training the landmarker: a small network that looks once more at each face a detector found."""
