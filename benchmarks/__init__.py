"""Which engine to ship and what it costs: latency, accuracy, statistics, reports."""
