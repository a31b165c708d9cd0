"""The spectrogram that models of Whisper's kind hear: `log_mel_spectrogram` of OpenAI's `whisper/audio.py`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MELS, WINDOW, HOP, RATE = 80, 400, 160, 16_000


def _filters() -> Tensor:
    """Slaney's mel scale, each filter of the same area, as `librosa.filters.mel`."""
    def mel(hertz: np.ndarray) -> np.ndarray:
        return np.where(hertz < 1000, hertz * 3 / 200, 15 + np.log(np.maximum(hertz, 1) / 1000) * 27 / np.log(6.4))

    def hertz(mels: np.ndarray) -> np.ndarray:
        return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))

    bins = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    edges = hertz(np.linspace(0, mel(np.array(RATE / 2)), MELS + 2))
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    shape = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(shape.astype(np.float32))


FILTERS = _filters()


def log_mel(sound: Tensor) -> Tensor:
    """`[batch, samples]` to `[batch, 80, samples / 160]`."""
    power = torch.stft(sound, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)[..., :-1].abs() ** 2
    log = torch.clamp(FILTERS @ power, min=1e-10).log10()
    log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8)
    return (log + 4) / 4
