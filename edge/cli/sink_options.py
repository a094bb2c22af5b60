"""Where the results of `edge run` go: arguments, and the sinks they ask for."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import math
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli import options
from edge.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from edge.sinks import Sink
    from edge.sinks.delivery import Transport
    from edge.sources import Source

_VIDEO_MINUTES = 60.0
_RECEIVERS = ("webhook", "mqtt", "nats")
_BELONGS_TO = {
    "events_max_mb": "events",
    "video_minutes": "video",
    "video_max_gb": "video",
    "webhook_key_file": "webhook",
    "webhook_token_file": "webhook",
    "mqtt_password_file": "mqtt",
    "mqtt_discovery": "mqtt",
    "nats_password_file": "nats",
}


def add_sinks(parser: argparse.ArgumentParser) -> None:
    """--events, --video, --show and what belongs to them; --webhook and what belongs to it."""
    parser.add_argument("--events", type=Path, metavar="FILE", help="append one JSON line a decision; - is stdout")
    parser.add_argument(
        "--events-max-mb", type=options.positive_float, metavar="MB", help="begin a new file beyond, keep five old ones"
    )
    parser.add_argument(
        "--video",
        type=Path,
        metavar="FILE",
        help="write the annotated video (.mp4, .mkv, .avi); one file a source; a camera's older ones are put aside",
    )
    parser.add_argument(
        "--video-minutes",
        type=options.positive_float,
        metavar="M",
        help="begin a new video after so long (default: 60 for live sources, never for files)",
    )
    parser.add_argument(
        "--video-max-gb",
        type=options.positive_float,
        metavar="GB",
        help="delete a source's oldest videos beyond (default: none is deleted)",
    )
    parser.add_argument("--show", action="store_true", help="show a window; q, or closing it, ends")
    _add_network(parser)


def _add_network(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group(
        "events for others",
        "kept while the network is away, sent when it is back, at least once; see docs/events.md",
    )
    network.add_argument("--webhook", metavar="URL", help="POST events to http://… or https://…")
    network.add_argument(
        "--webhook-key-file",
        type=Path,
        metavar="FILE",
        help="sign requests with this key (default: $ARCEDGE_WEBHOOK_KEY, else unsigned)",
    )
    network.add_argument(
        "--webhook-token-file",
        type=Path,
        metavar="FILE",
        help="send this bearer token (default: $ARCEDGE_WEBHOOK_TOKEN, else none)",
    )
    network.add_argument(
        "--mqtt",
        metavar="URL",
        help="publish events, and retained who is there: mqtt://[USER@]HOST[:PORT]/PREFIX, or mqtts:// for TLS",
    )
    network.add_argument(
        "--mqtt-password-file",
        type=Path,
        metavar="FILE",
        help="the user's password (default: $ARCEDGE_MQTT_PASSWORD)",
    )
    network.add_argument(
        "--mqtt-discovery",
        nargs="?",
        const="homeassistant",
        metavar="PREFIX",
        help="tell Home Assistant what there is, so that the sources appear by themselves (below homeassistant)",
    )
    network.add_argument(
        "--nats",
        metavar="URL",
        help="publish events to a JetStream stream: nats://[USER@]HOST[:PORT]/STREAM, or tls://",
    )
    network.add_argument(
        "--nats-password-file",
        type=Path,
        metavar="FILE",
        help="the user's password, or a token where no user is named (default: $ARCEDGE_NATS_PASSWORD)",
    )
    network.add_argument(
        "--send",
        choices=("visits", "decisions"),
        default="visits",
        help="tell who comes and goes, or of every face in every frame (default: %(default)s)",
    )
    network.add_argument("--device", metavar="NAME", help="what events call this box (default: its host name)")
    network.add_argument(
        "--spool",
        type=Path,
        metavar="DIR",
        help="where events wait (default: spool in $STATE_DIRECTORY, else in ~/.local/state/arcedge)",
    )
    network.add_argument(
        "--spool-max-mb",
        type=options.positive_float,
        metavar="MB",
        default=100.0,
        help="beyond it the oldest events are dropped and counted (default: 100)",
    )


def networked(args: argparse.Namespace) -> list[str]:
    """The options given that send events to others."""
    return [f"--{name}" for name in _RECEIVERS if getattr(args, name) is not None]


def open_sinks(args: argparse.Namespace, stop: Callable[[], None], sources: Sequence[Source]) -> list[Sink]:
    """What takes the results of all sources; `stop` ends the run. Raises InputError, and MissingExtraError."""
    from edge.sinks import JsonLines, Window

    sinks: list[Sink] = []
    if args.show:
        sinks.append(Window(stop))
    if args.events is not None:
        sinks.append(JsonLines(args.events, max_bytes=round((args.events_max_mb or 0) * 1e6)))
    # Last: they start threads, which nothing that is refused here may leave behind.
    return [*sinks, *_network_sinks(args, sources)]


def open_sinks_of(args: argparse.Namespace, source: Source, *, alone: bool) -> list[Sink]:
    """What takes the results of one source only; `alone` where there is no other. Raises InputError."""
    from edge.sinks import Progress, VideoFileSink
    from edge.sources import file_of

    sinks: list[Sink] = []
    if args.video is not None:
        path = args.video if alone else file_of(args.video, source.name)
        minutes = args.video_minutes or (_VIDEO_MINUTES if source.live else math.inf)
        most = (args.video_max_gb or math.inf) * 1e9
        live = source.live
        sinks.append(VideoFileSink(path, lambda: source.fps, minutes * 60, overwrite=not live, most_bytes=most))
    if source.length is not None:
        sinks.append(Progress(min(source.length, args.max_frames or source.length)))
    return sinks


def _transports(args: argparse.Namespace, sources: Sequence[str]) -> dict[str, Transport]:
    openers = {"webhook": _webhook, "mqtt": _mqtt, "nats": _nats}
    return {name: openers[name](args, sources) for name in _RECEIVERS if getattr(args, name) is not None}


def _webhook(args: argparse.Namespace, _: Sequence[str]) -> Transport:
    from edge.sinks.secret import secret_of
    from edge.sinks.webhook import SigningKey, Webhook

    key = secret_of(args.webhook_key_file, "ARCEDGE_WEBHOOK_KEY")
    token = secret_of(args.webhook_token_file, "ARCEDGE_WEBHOOK_TOKEN")
    return Webhook(args.webhook, None if key is None else SigningKey.parse(key), token)


def _mqtt(args: argparse.Namespace, sources: Sequence[str]) -> Transport:
    from edge.sinks.secret import secret_of

    _require("paho", "paho-mqtt", "mqtt")
    from edge.sinks.mqtt import Mqtt, MqttAddress

    password = secret_of(args.mqtt_password_file, "ARCEDGE_MQTT_PASSWORD")
    return Mqtt(MqttAddress.parse(args.mqtt, password), _device(args), sources, args.mqtt_discovery)


def _nats(args: argparse.Namespace, _: Sequence[str]) -> Transport:
    from edge.sinks.secret import secret_of

    _require("nats", "nats-py", "nats")
    from edge.sinks.nats import Nats, NatsAddress

    secret = secret_of(args.nats_password_file, "ARCEDGE_NATS_PASSWORD")
    return Nats(NatsAddress.parse(args.nats, secret), _device(args))


def _require(module: str, package: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(package, extra)


def _network_sinks(args: argparse.Namespace, sources: Sequence[Source]) -> list[Sink]:
    for option, receiver in _BELONGS_TO.items():
        if getattr(args, option) is not None and getattr(args, receiver) is None:
            raise InputError(f"--{option.replace('_', '-')} is for --{receiver}, which is not there")
    transports = _transports(args, [source.name for source in sources])
    if not transports:
        return []
    from edge.sinks.network import Feed, NetworkSink, Watched, new_run
    from edge.sinks.spool import Spool

    run, folder, device = new_run(), _spool_folder(args), _device(args)
    watched = {source.name: Watched(source.moving, source.live) for source in sources}
    size = round(args.spool_max_mb * 1e6)
    # All of them are opened before the first has a thread.
    spools = {name: Spool(folder / f"{name}-{_digest(getattr(args, name))}.db", size) for name in transports}
    return [
        NetworkSink(name, device, watched, spools[name], transport, Feed(args.send), run)
        for name, transport in transports.items()
    ]


def _digest(address: str) -> str:
    """Keeps events for one receiver from ever being sent to another."""
    return hashlib.sha256(address.encode()).hexdigest()[:12]


def _device(args: argparse.Namespace) -> str:
    return str(args.device or socket.gethostname().partition(".")[0] or "arcedge")


def _spool_folder(args: argparse.Namespace) -> Path:
    """The user's, else where this system keeps state: systemd says it in $STATE_DIRECTORY."""
    if args.spool is not None:
        return Path(args.spool)
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0]) / "spool"
    try:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise InputError("events need a folder to wait in, and this user has no home; name one with --spool") from error
    return Path(home) / "arcedge" / "spool"
