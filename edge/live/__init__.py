"""The live page and the metrics of a run: `edge run --serve`. Needs the extra `live`."""
