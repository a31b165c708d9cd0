"""Draws the pictures the detector and the classifier are trained and scored on: coloured shapes, from a seed.

A picture is a background (plain, gradient, stripes or patches) with thin lines as clutter, shapes on it (rotated, of many
sizes, overlapping a little), and then blur, a change of light and noise. Boxes are tight around the whole shape, cut at
the border of the picture.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

KINDS = ["circle", "square", "triangle", "star", "heart", "moon"]
COLOURS = {"red": (214, 40, 40), "orange": (245, 130, 32), "yellow": (250, 214, 40), "green": (46, 160, 67),
           "blue": (40, 92, 210), "purple": (134, 60, 170)}

Point = tuple[float, float]
Rgb = tuple[int, int, int]

# Shapes are drawn this many times larger and averaged down: smooth edges.
OVERSAMPLE = 2


@dataclass(frozen=True)
class Shape:
    """One drawn shape: `box` is (x1, y1, x2, y2) in pixels."""

    kind: str
    colour: str
    box: tuple[float, float, float, float]


def outline(kind: str) -> list[Point]:
    """The corners of a shape of radius 1 around the origin."""
    def circle(n: int, start: float = 0.0, radius: float = 1.0) -> list[Point]:
        return [(radius * math.cos(start + 2 * math.pi * i / n), radius * math.sin(start + 2 * math.pi * i / n)) for i in range(n)]

    if kind == "circle":
        return circle(48)
    if kind == "square":
        return circle(4, math.pi / 4)
    if kind == "triangle":
        return circle(3, -math.pi / 2)
    if kind == "star":
        tips, dents = circle(5, -math.pi / 2), circle(5, -math.pi / 2 + math.pi / 5, 0.42)
        return [point for pair in zip(tips, dents) for point in pair]
    if kind == "heart":
        steps = [2 * math.pi * i / 48 for i in range(48)]
        return [(math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16) for t in steps]
    if kind == "moon":
        # The outer arc of one circle, back along the arc of a second one that is moved to the right.
        outer = [math.pi / 3 + i * (4 * math.pi / 3) / 32 for i in range(33)]
        inner = [5 * math.pi / 4 - i * (2 * math.pi / 4) / 24 for i in range(25)]
        scale = math.sin(math.pi / 3) / math.sin(math.pi / 4)
        centre = math.cos(math.pi / 3) + scale * math.cos(math.pi / 4)
        return [(math.cos(t), math.sin(t)) for t in outer] + [(centre + scale * math.cos(t), scale * math.sin(t)) for t in inner]
    raise ValueError(f"unknown kind of shape: {kind}")


def placed(kind: str, x: float, y: float, radius: float, angle: float) -> list[Point]:
    """The corners of a shape, turned, scaled and moved."""
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x + radius * (px * cos - py * sin), y + radius * (px * sin + py * cos)) for px, py in outline(kind)]


def bounds(points: list[Point], width: int, height: int) -> tuple[float, float, float, float]:
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return max(min(xs), 0.0), max(min(ys), 0.0), min(max(xs), float(width)), min(max(ys), float(height))


def distance(a: Rgb, b: Rgb) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))


def jitter(rng: random.Random, colour: Rgb, amount: int) -> Rgb:
    return tuple(max(0, min(255, c + rng.randint(-amount, amount))) for c in colour)  # type: ignore[return-value]


def anything(rng: random.Random) -> Rgb:
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)


def background(rng: random.Random, width: int, height: int, base: Rgb) -> Image.Image:
    """A background that stays near `base`, so that shapes can be told from it."""
    other = jitter(rng, base, 40)
    style = rng.randrange(4)
    if style == 0:
        return Image.new("RGB", (width, height), base)
    if style == 1:
        angle = rng.uniform(0, 2 * math.pi)
        across = np.linspace(-1, 1, width)[None, :] * math.cos(angle) + np.linspace(-1, 1, height)[:, None] * math.sin(angle)
        share = ((across + 1.42) / 2.84)[..., None]
        return Image.fromarray((np.array(base) * (1 - share) + np.array(other) * share).astype(np.uint8))
    picture = Image.new("RGB", (width, height), base)
    draw = ImageDraw.Draw(picture)
    if style == 2:
        step, slant = rng.randint(8, 40) * max(width, height) // 200 + 2, rng.randint(-height, height)
        for x in range(-height, width + height, 2 * step):
            draw.polygon([(x, 0), (x + step, 0), (x + step + slant, height), (x + slant, height)], fill=other)
        return picture
    for _ in range(rng.randint(3, 10)):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.1, 0.5) * max(width, height)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=jitter(rng, base, 30))
    return picture.filter(ImageFilter.GaussianBlur(max(width, height) / 24))


def clutter(rng: random.Random, draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    """Thin lines and dots that are nobody's shape."""
    if rng.random() < 0.5:
        return
    for _ in range(rng.randint(1, 5)):
        line = [(rng.uniform(0, width), rng.uniform(0, height)) for _ in range(2)]
        draw.line(line, fill=anything(rng), width=rng.randint(1, 2) * OVERSAMPLE)
    for _ in range(rng.randint(0, 12)):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.4, 1.2) * OVERSAMPLE
        draw.ellipse((x - r, y - r, x + r, y + r), fill=anything(rng))


def paint(rng: random.Random, picture: Image.Image, points: list[Point], colour: Rgb) -> None:
    """Fills a shape, sometimes shaded, sometimes with a rim."""
    scaled = [(x * OVERSAMPLE, y * OVERSAMPLE) for x, y in points]
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.3:
        xs, ys = [p[0] for p in scaled], [p[1] for p in scaled]
        x1, y1, x2, y2 = math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)) + 1, math.ceil(max(ys)) + 1
        mask = Image.new("L", (x2 - x1, y2 - y1))
        ImageDraw.Draw(mask).polygon([(x - x1, y - y1) for x, y in scaled], fill=255)
        fade = np.linspace(1.12, 0.8, y2 - y1)[:, None, None] * np.array(colour)[None, None, :]
        shade = np.repeat(np.clip(fade, 0, 255).astype(np.uint8), x2 - x1, axis=1)
        picture.paste(Image.fromarray(shade), (x1, y1), mask)
    else:
        draw.polygon(scaled, fill=colour)
    if rng.random() < 0.25:
        rim = tuple(c // 3 for c in colour) if rng.random() < 0.5 else tuple(255 - (255 - c) // 3 for c in colour)
        draw.line([*scaled, scaled[0]], fill=rim, width=OVERSAMPLE, joint="curve")


def weather(rng: random.Random, picture: Image.Image, noise: float) -> Image.Image:
    """Blur, light and noise."""
    if rng.random() < 0.25:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    pixels = np.asarray(picture, dtype=np.float32)
    pixels = (pixels - 128) * rng.uniform(0.8, 1.15) + 128 + rng.uniform(-18, 18)
    if rng.random() < 0.6:
        pixels = pixels + np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(0, noise), pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The shared area as a share of the smaller box."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / max(1e-6, min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])))


def scene(rng: random.Random, width: int, height: int, *, noise: float = 14.0) -> tuple[Image.Image, list[Shape]]:
    """A picture with one to seven shapes for the detector."""
    base = anything(rng)
    picture = background(rng, width * OVERSAMPLE, height * OVERSAMPLE, base)
    clutter(rng, ImageDraw.Draw(picture), width * OVERSAMPLE, height * OVERSAMPLE)
    shapes: list[Shape] = []
    side = min(width, height)
    for _ in range(rng.randint(1, 7)):
        kind = rng.choice(KINDS)
        radius = side * math.exp(rng.uniform(math.log(0.05), math.log(0.28)))
        x, y = rng.uniform(0.5 * radius, width - 0.5 * radius), rng.uniform(0.5 * radius, height - 0.5 * radius)
        points = placed(kind, x, y, radius, rng.uniform(0, 2 * math.pi))
        box = bounds(points, width, height)
        whole = (max(p[0] for p in points) - min(p[0] for p in points)) * (max(p[1] for p in points) - min(p[1] for p in points))
        if (box[2] - box[0]) * (box[3] - box[1]) < 0.7 * whole or any(overlap(box, other.box) > 0.2 for other in shapes):
            continue
        name, colour = rng.choice(list(COLOURS.items()))
        colour = jitter(rng, colour, 25) if rng.random() < 0.7 else anything(rng)
        if distance(colour, base) < 100:
            continue
        paint(rng, picture, points, colour)
        shapes.append(Shape(kind, name, box))
    return weather(rng, picture.reduce(OVERSAMPLE), noise), shapes


def portrait(rng: random.Random, size: int, kind: str, colour: str) -> Image.Image:
    """A square picture of one shape in one colour for the classifier."""
    wanted = jitter(rng, COLOURS[colour], 22)
    base = anything(rng)
    while distance(base, wanted) < 100:
        base = anything(rng)
    picture = background(rng, size * OVERSAMPLE, size * OVERSAMPLE, base)
    clutter(rng, ImageDraw.Draw(picture), size * OVERSAMPLE, size * OVERSAMPLE)
    radius = size * rng.uniform(0.22, 0.46)
    room = max(0.0, size / 2 - radius)
    x, y = size / 2 + rng.uniform(-room, room), size / 2 + rng.uniform(-room, room)
    paint(rng, picture, placed(kind, x, y, radius, rng.uniform(0, 2 * math.pi)), wanted)
    return weather(rng, picture.reduce(OVERSAMPLE), 12.0)
