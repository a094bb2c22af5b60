"""Statistics of verification, identification and detection, in numpy alone: a device can state them itself."""
