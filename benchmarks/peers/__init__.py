"""Peers by name, each an adapter of its own; a peer's package is imported when the peer is opened, never before."""

from __future__ import annotations

PEERS: dict[str, str] = {
    "insightface": "benchmarks.peers.insightface:open_square",
    "insightface-wide": "benchmarks.peers.insightface:open_wide",
    "opencv": "benchmarks.peers.opencv:open_peer",
    "ncnn": "benchmarks.peers.ncnn:open_peer",
    "openvino": "benchmarks.peers.plain:open_openvino",
    "onnxruntime": "benchmarks.peers.plain:open_onnxruntime",
}
