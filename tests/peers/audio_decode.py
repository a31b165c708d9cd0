#!/usr/bin/env python3
"""The peer of the stage `audio-decode`: FFmpeg (PyAV), and soundfile to write Vorbis.

    audio_decode.py fixtures        writes the small sound files of the stage's tests
    audio_decode.py golden [ASSETS] decodes them, and the shared assets, and writes down what came out

Needs `pip install av==18.1.0 soundfile==0.14.0 numpy==2.4.6`. Nothing of the product or its tests runs this.
"""
import json, pathlib, sys

import av
import numpy as np
import soundfile

TESTS = pathlib.Path(__file__).resolve().parents[2] / "wasm-stages/audio-decode/tests"
DATA = TESTS / "data"
# Samples of each channel that are written down, spread over the file.
PROBES = 48

# name, container, codec, rate, channels, sample format, bit rate
FIXTURES = [
    ("pcm-u8.wav", "wav", "pcm_u8", 8000, 1, "u8", None),
    ("pcm-s16.wav", "wav", "pcm_s16le", 16000, 2, "s16", None),
    ("pcm-s24.wav", "wav", "pcm_s24le", 8000, 2, "s32", None),
    ("pcm-s32.wav", "wav", "pcm_s32le", 8000, 1, "s32", None),
    ("pcm-f32.wav", "wav", "pcm_f32le", 8000, 2, "flt", None),
    ("pcm-f64.wav", "wav", "pcm_f64le", 8000, 1, "dbl", None),
    ("eight-channels.wav", "wav", "pcm_s16le", 8000, 8, "s16", None),
    ("a-law.wav", "wav", "pcm_alaw", 8000, 1, "s16", None),
    ("mu-law.wav", "wav", "pcm_mulaw", 8000, 1, "s16", None),
    ("s16.aiff", "aiff", "pcm_s16be", 16000, 2, "s16", None),
    ("s16.caf", "caf", "pcm_s16be", 16000, 1, "s16", None),
    ("s16.flac", "flac", "flac", 16000, 2, "s16", None),
    ("s24.flac", "flac", "flac", 44100, 1, "s32", None),
    ("44100.mp3", "mp3", "libmp3lame", 44100, 2, "s16p", 64000),
    ("16000.mp3", "mp3", "libmp3lame", 16000, 1, "s16p", 32000),
    ("vorbis.webm", "webm", "vorbis", 16000, 1, "fltp", None),
    ("vorbis.ogg", "ogg", "vorbis", 44100, 2, "fltp", 64000),
    ("aac.m4a", "ipod", "aac", 44100, 2, "fltp", 64000),
    ("fragmented.mp4", "mp4", "aac", 48000, 1, "fltp", 48000),
    ("aac.adts", "adts", "aac", 16000, 1, "fltp", 32000),
    ("alac.m4a", "ipod", "alac", 16000, 2, "s16p", None),
    ("opus.ogg", "ogg", "libopus", 48000, 2, "s16", 64000),
    ("opus-voice.ogg", "ogg", "libopus", 16000, 1, "s16", 12000),
    ("opus-hybrid.ogg", "ogg", "libopus", 48000, 1, "s16", 28000),
    ("opus.webm", "webm", "libopus", 48000, 1, "s16", 32000),
    ("aac.mkv", "matroska", "aac", 16000, 1, "fltp", 32000),
]


def signal(rate, channels, seconds=0.3):
    """A rising tone with a vowel-like hum, different in each channel, and a pause."""
    t = np.arange(int(rate * seconds)) / rate
    out = []
    for channel in range(channels):
        rising = 0.3 * np.sin(2 * np.pi * (200 + 60 * channel + 1500 * t) * t)
        hum = sum(0.2 / k * np.sin(2 * np.pi * 110 * (channel + 1) * k * t) for k in range(1, 6))
        out.append((rising + hum) * (np.sin(np.pi * t / seconds) ** 2) * (np.abs(t - seconds / 2) > 0.02))
    return np.stack(out)


def write(name, container, codec, rate, channels, form, bit_rate):
    if codec == "vorbis":
        return write_vorbis(name, container, rate, channels)
    layout = {1: "mono", 2: "stereo", 8: "7.1"}[channels]
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if name.startswith("fragmented") else {}
    if container in ("webm", "matroska"):
        options["live"] = "1"  # as browsers record: sizes are not known
    with av.open(str(DATA / name), "w", format=container, options=options) as file:
        codec_options = {"strict": "experimental"}
        if name == "opus-voice.ogg":
            codec_options["application"] = "voip"
        stream = file.add_stream(codec, rate=rate, layout=layout, options=codec_options)
        if bit_rate:
            stream.bit_rate = bit_rate
        stream.codec_context.format = form
        resampler = av.AudioResampler(format=form, layout=layout, rate=rate,
                                      frame_size=stream.codec_context.frame_size or 1024)
        samples = np.ascontiguousarray(signal(rate, channels).T.reshape(1, -1).astype(np.float32))
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate = rate
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))


def write_vorbis(name, container, rate, channels):
    """By libvorbis, which PyAV does not have; WebM takes the same packets."""
    ogg = DATA / "vorbis.ogg"
    soundfile.write(DATA / name if container == "ogg" else ogg, signal(rate, channels).T, rate,
                    format="OGG", subtype="VORBIS")
    if container == "ogg":
        return
    with av.open(str(ogg)) as source, av.open(str(DATA / name), "w", format=container) as file:
        stream = file.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                file.mux(packet)


def frames(file, stream):
    """FFmpeg's own Opus decoder is far from libopus in the modes for voice: libopus is the reference."""
    if stream.codec_context.codec.name != "opus":
        return file.decode(stream)
    decoder = av.CodecContext.create("libopus", "r")
    decoder.extradata = stream.codec_context.extradata
    return (frame for packet in file.demux(stream) for frame in decoder.decode(packet))


def decode(path):
    """What FFmpeg makes of a file (of Vorbis in Ogg, libvorbis: FFmpeg drops its last block): rate, samples [channels, frames]."""
    if path.name == "vorbis.ogg":
        data, rate = soundfile.read(path)
        return rate, data.T
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        parts, rate = [], None
        for frame in frames(file, stream):
            rate = frame.sample_rate
            data = frame.to_ndarray().astype(np.float64)
            scale = {"u8": (128, 128), "s16": (0, 2**15), "s32": (0, 2**31)}.get(frame.format.name.rstrip("p"), (0, 1))
            data = (data - scale[0]) / scale[1]
            channels = frame.layout.nb_channels
            parts.append(data if frame.format.is_planar else data.reshape(-1, channels).T)
        return rate, np.concatenate(parts, 1)


def golden(path):
    rate, samples = decode(path)
    frames = samples.shape[1]
    at = np.linspace(0, frames - 1, PROBES).astype(int)
    return {
        "rate": rate, "channels": samples.shape[0], "frames": frames,
        "rms": [round(float(x), 6) for x in np.sqrt((samples**2).mean(1))],
        "at": at.tolist(),
        "probes": [[round(float(x), 6) for x in row[at]] for row in samples],
    }


def main():
    if sys.argv[1] == "fixtures":
        DATA.mkdir(parents=True, exist_ok=True)
        for fixture in FIXTURES:
            write(*fixture)
        return
    names = {name: golden(DATA / name) for name, *_ in FIXTURES}
    (TESTS / "golden.json").write_text(dump(names))
    if len(sys.argv) > 2:
        root = pathlib.Path(sys.argv[2]) / "audio"
        files = sorted(p for p in root.rglob("*") if p.suffix in (".wav", ".flac", ".mp3", ".aiff"))
        (TESTS / "golden-assets.json").write_text(dump({str(p.relative_to(root)): golden(p) for p in files}))


def dump(entries):
    lines = (f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}" for name, entry in entries.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main()
