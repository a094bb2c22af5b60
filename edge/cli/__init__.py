"""The command line `edge`."""
