"""Draws portrait.png: an invented face, so that nobody's likeness and nobody's licence is involved.

Run: python assets/draw_portrait.py [FILE]. Needs Pillow only; the same Pillow draws the same bytes.
Coordinates are pixels of the finished 512x768 picture; all is drawn three times as large and scaled down.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

WIDTH, HEIGHT = 512, 768
SUPERSAMPLING = 3
MIDDLE = WIDTH / 2

TimelinePoint = tuple[float, float]
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

SKIN, SKIN_LIGHT, SKIN_SHADE, SKIN_DEEP = (229, 178, 148), (247, 209, 182), (188, 126, 97), (139, 82, 62)
BLUSH, LIP, LIP_DARK, LIP_LIGHT = (219, 122, 106), (190, 92, 88), (128, 52, 54), (228, 150, 141)
HAIR, HAIR_LIGHT, HAIR_DARK = (66, 42, 32), (128, 86, 60), (36, 23, 19)
IRIS, IRIS_DARK, PUPIL, SCLERA = (98, 122, 94), (44, 60, 48), (18, 16, 18), (240, 234, 228)
JUMPER, JUMPER_LIGHT, JUMPER_DARK = (44, 96, 108), (74, 134, 144), (22, 58, 70)
WALL_LIGHT, WALL_DARK = (222, 214, 202), (134, 138, 144)
WHITE: Colour = (255, 255, 255)


def parse_points(text: str) -> list[TimelinePoint]:
    """The points of "x,y x,y ..."."""
    pairs = (pair.split(",") for pair in text.split())
    return [(float(x), float(y)) for x, y in pairs]


def smooth(points: Sequence[TimelinePoint], closed: bool = True, steps: int = 16) -> list[TimelinePoint]:
    """A Catmull-Rom curve through `points`."""
    count = len(points)
    around = [points[i % count] for i in range(-1, count + 2)] if closed else [points[0], *points, points[-1]]
    curve: list[TimelinePoint] = []
    for a, b, c, d in zip(around, around[1:], around[2:], around[3:], strict=False):
        curve += [_between(a, b, c, d, step / steps) for step in range(steps)]
    return curve


def _between(a: TimelinePoint, b: TimelinePoint, c: TimelinePoint, d: TimelinePoint, t: float) -> TimelinePoint:
    """The point at `t` of the way from b to c; a and d are their neighbours."""

    def axis(p: float, q: float, r: float, s: float) -> float:
        return 0.5 * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - s) * t**2 + (3 * q - p - 3 * r + s) * t**3)

    return axis(a[0], b[0], c[0], d[0]), axis(a[1], b[1], c[1], d[1])


def symmetric(right_half: Sequence[TimelinePoint]) -> list[TimelinePoint]:
    """The outline whose right half, from top to bottom, is given; a curve through it and its mirror image."""
    left_half = [(2 * MIDDLE - x, y) for x, y in reversed(right_half) if x != MIDDLE]
    return smooth([*right_half, *left_half])


def mirrored(points: Iterable[TimelinePoint]) -> list[TimelinePoint]:
    """The same shape on the other side of the face."""
    return [(2 * MIDDLE - x, y) for x, y in points]


class Painting:
    """A picture that grows by soft-edged layers."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING), WALL_LIGHT)

    def mask(self, outline: Sequence[TimelinePoint], blur: float, box: Box) -> Image.Image:
        """Coverage of a filled outline inside `box`, its edge softened by `blur` pixels."""
        left, top, right, bottom = box
        mask = Image.new("L", (right - left, bottom - top))
        corners = [(x * SUPERSAMPLING - left, y * SUPERSAMPLING - top) for x, y in outline]
        ImageDraw.Draw(mask).polygon(corners, fill=255)
        return mask.filter(ImageFilter.GaussianBlur(blur * SUPERSAMPLING))

    def reach(self, outline: Sequence[TimelinePoint], blur: float) -> Box:
        """The part of the picture that a blurred outline can touch."""
        margin = 4 * blur + 1
        columns, rows = [x for x, _ in outline], [y for _, y in outline]
        left, top = int((min(columns) - margin) * SUPERSAMPLING), int((min(rows) - margin) * SUPERSAMPLING)
        right, bottom = (
            int((max(columns) + margin) * SUPERSAMPLING),
            int((max(rows) + margin) * SUPERSAMPLING),
        )
        return max(left, 0), max(top, 0), min(right, self.image.width), min(bottom, self.image.height)

    def fill(
        self,
        outline: Sequence[TimelinePoint],
        colour: Colour,
        *,
        blur: float = 0.5,
        opacity: float = 1.0,
        within: Sequence[TimelinePoint] | None = None,
    ) -> None:
        """Paint an outline, seen only `within` another one."""
        box = self.reach(outline, blur)
        mask = self.mask(outline, blur, box)
        if within is not None:
            mask = ImageChops.multiply(mask, self.mask(within, 0.6, box))
        self.image.paste(colour, box, mask.point([round(value * opacity) for value in range(256)]))

    def stroke(
        self,
        points: Sequence[TimelinePoint],
        colour: Colour,
        width: float,
        *,
        blur: float = 0.6,
        opacity: float = 1.0,
        within: Sequence[TimelinePoint] | None = None,
    ) -> None:
        """Paint a curve that is `width` pixels wide in the middle and pointed at both ends."""
        curve = smooth(points, closed=False)
        upper, lower = [], []
        for index, (x, y) in enumerate(curve):
            along = index / (len(curve) - 1)
            half = width / 2 * (4 * along * (1 - along)) ** 0.5
            (x0, y0), (x1, y1) = curve[max(index - 1, 0)], curve[min(index + 1, len(curve) - 1)]
            length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-6)
            normal = (y0 - y1) / length * half, (x1 - x0) / length * half
            upper.append((x + normal[0], y + normal[1]))
            lower.append((x - normal[0], y - normal[1]))
        self.fill([*upper, *reversed(lower)], colour, blur=blur, opacity=opacity, within=within)

    def finished(self) -> Image.Image:
        """The picture at its real size."""
        return self.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def ellipse(x: float, y: float, rx: float, ry: float) -> list[TimelinePoint]:
    """An ellipse about (x, y), as a smooth curve."""
    k = 0.7071
    corners = [(1, 0), (k, k), (0, 1), (-k, k), (-1, 0), (-k, -k), (0, -1), (k, -k)]
    return smooth([(x + rx * dx, y + ry * dy) for dx, dy in corners])


FACE = symmetric(parse_points("256,172 304,182 340,222 352,282 348,336 336,386 312,432 282,462 256,470"))
NECK = symmetric(parse_points("256,400 300,410 303,460 308,498 330,522 316,560 256,580"))
BODY = symmetric(parse_points("256,534 320,524 384,548 450,578 490,642 516,790 256,800"))
COLLAR = symmetric(parse_points("256,556 296,546 322,514 337,524 312,570 256,587"))
HAIR_BEHIND = symmetric(parse_points("256,112 326,124 376,176 394,262 398,352 404,440 388,512 338,524 256,480"))
FRINGE = smooth(
    parse_points(
        "256,110 318,120 366,164 388,236 396,330 400,420 388,500 362,512 348,440 352,352 350,300 340,256 "
        "318,222 292,198 266,186 230,208 196,234 174,268 163,306 160,352 164,440 150,512 124,500 114,420 "
        "116,330 124,236 148,164 196,120"
    )
)
EYE = smooth(parse_points("282,318 294,306 310,302 325,307 334,317 322,325 306,328 292,325"))
UPPER_LIP = smooth(parse_points("219,418 236,411 248,406 256,409 264,406 276,411 293,418 274,421 256,422 238,421"))
LOWER_LIP = smooth(parse_points("221,419 238,421 256,422 274,421 291,419 278,432 256,438 234,432"))


def draw_wall(painting: Painting) -> None:
    """A plain wall, lit from the upper left."""
    everything = [(-50, -50), (WIDTH + 50, -50), (WIDTH + 50, HEIGHT + 50), (-50, HEIGHT + 50)]
    painting.fill(everything, WALL_DARK)
    painting.fill(ellipse(170, 250, 300, 380), WALL_LIGHT, blur=110)


def draw_body(painting: Painting) -> None:
    """A jumper with a collar, folds, and the shadow of the head on the neck."""
    painting.fill(BODY, JUMPER)
    painting.fill(ellipse(110, 612, 80, 60), JUMPER_LIGHT, blur=30, opacity=0.8, within=BODY)
    painting.fill(ellipse(440, 730, 110, 100), JUMPER_DARK, blur=34, opacity=0.9, within=BODY)
    for side in (list, mirrored):
        painting.stroke(side([(372, 612), (356, 680), (372, 780)]), JUMPER_DARK, 12, blur=6, opacity=0.6, within=BODY)
        painting.stroke(side([(312, 600), (290, 690), (292, 780)]), JUMPER_DARK, 9, blur=7, opacity=0.35, within=BODY)
    painting.fill(NECK, SKIN)
    painting.fill(ellipse(260, 462, 84, 46), SKIN_DEEP, blur=13, opacity=0.95, within=NECK)
    painting.fill(ellipse(312, 520, 34, 70), SKIN_SHADE, blur=16, opacity=0.8, within=NECK)
    for side in (list, mirrored):
        painting.stroke(side([(262, 546), (282, 538), (306, 530)]), SKIN_SHADE, 7, blur=3, opacity=0.7)
    painting.stroke([(178, 520), (200, 574), (256, 592), (312, 574), (334, 520)], JUMPER_DARK, 12, blur=4, within=BODY)
    painting.fill(COLLAR, JUMPER)
    painting.stroke([(184, 526), (206, 562), (256, 576), (290, 568)], JUMPER_LIGHT, 9, blur=4, within=COLLAR)
    painting.stroke([(188, 522), (212, 550), (256, 559), (300, 550), (324, 522)], JUMPER_DARK, 4, blur=1.6)


def draw_head(painting: Painting) -> None:
    """The face without its features, shaped by light from the upper left."""
    painting.fill(FACE, SKIN)
    painting.fill(ellipse(350, 340, 44, 130), SKIN_SHADE, blur=26, opacity=0.85, within=FACE)
    painting.fill(ellipse(160, 360, 22, 110), SKIN_SHADE, blur=18, opacity=0.5, within=FACE)
    painting.fill(ellipse(270, 474, 70, 20), SKIN_SHADE, blur=14, opacity=0.8, within=FACE)
    painting.fill(ellipse(236, 252, 62, 34), SKIN_LIGHT, blur=24, opacity=0.8, within=FACE)
    painting.fill(ellipse(200, 362, 30, 22), SKIN_LIGHT, blur=14, opacity=0.7, within=FACE)
    painting.fill(ellipse(254, 452, 22, 10), SKIN_LIGHT, blur=8, opacity=0.6, within=FACE)
    for side in (list, mirrored):
        painting.fill(side(ellipse(318, 376, 28, 20)), BLUSH, blur=16, opacity=0.42, within=FACE)
        painting.fill(side(ellipse(306, 300, 36, 20)), SKIN_SHADE, blur=10, opacity=0.45, within=FACE)
    painting.fill(symmetric([(256, 172), (320, 190), (352, 250), (330, 246), (256, 206)]), SKIN_DEEP, blur=10,
                  opacity=0.5, within=FACE)  # fmt: skip


def draw_eye(painting: Painting, *, left: bool) -> None:
    """One eye with its lids, lashes and brow; the catchlight is on the same side in both."""
    side = mirrored if left else list
    x, y = (mirrored if left else list)([(308, 315)])[0]
    lid = side(EYE)
    painting.fill(lid, SCLERA)
    painting.fill(ellipse(x, y, 13.5, 13.5), IRIS_DARK, blur=0.6, within=lid)
    painting.fill(ellipse(x, y + 1, 11.4, 11.4), IRIS, blur=1.2, within=lid)
    painting.fill(ellipse(x, y + 5, 8, 5), SKIN_LIGHT, blur=3, opacity=0.35, within=lid)
    painting.fill(ellipse(x, y, 5.6, 5.6), PUPIL, blur=0.5, within=lid)
    painting.fill(side(ellipse(308, 303, 32, 6.5)), SKIN_DEEP, blur=2.6, opacity=0.65, within=lid)
    painting.fill(ellipse(x - 4, y - 5, 2.6, 2.6), WHITE, blur=0.5)
    painting.stroke(side([(281, 319), (294, 306), (310, 301), (326, 306), (338, 314)]), HAIR_DARK, 4.6)
    painting.stroke(side([(286, 322), (306, 329), (330, 321)]), SKIN_DEEP, 1.8, opacity=0.7)
    painting.stroke(side([(284, 306), (298, 294), (314, 291), (332, 298)]), SKIN_DEEP, 2.6, blur=1, opacity=0.7)
    painting.stroke(side([(290, 336), (306, 340), (324, 335)]), SKIN_SHADE, 3, blur=2, opacity=0.6)
    brow = side([(274, 280), (294, 269), (316, 266), (343, 279)])
    painting.stroke(brow, HAIR, 9, blur=1.6, opacity=0.85)


def draw_nose(painting: Painting) -> None:
    """Nose by its shadows and lights only."""
    painting.fill(smooth([(262, 300), (268, 330), (278, 372), (270, 386), (262, 360)]), SKIN_SHADE, blur=6, opacity=0.6)
    painting.fill(smooth([(250, 300), (258, 300), (260, 366), (250, 368)]), SKIN_LIGHT, blur=5, opacity=0.85)
    painting.fill(ellipse(254, 371, 12, 9), SKIN_LIGHT, blur=5, opacity=0.85)
    painting.fill(ellipse(257, 391, 24, 5), SKIN_SHADE, blur=4, opacity=0.75)
    for side in (list, mirrored):
        painting.stroke(side([(277, 366), (283, 378), (276, 387)]), SKIN_SHADE, 4, blur=2, opacity=0.8)
        painting.fill(side(ellipse(266, 386.5, 6, 2.8)), SKIN_DEEP, blur=1.6, opacity=0.9)


def draw_mouth(painting: Painting) -> None:
    """A closed mouth, close to a smile."""
    painting.fill(UPPER_LIP, LIP, blur=0.8)
    painting.fill(LOWER_LIP, LIP, blur=0.8)
    painting.fill(ellipse(250, 430, 18, 3.6), LIP_LIGHT, blur=3, opacity=0.8, within=LOWER_LIP)
    painting.fill(ellipse(256, 417, 34, 4), LIP_DARK, blur=3, opacity=0.5, within=UPPER_LIP)
    painting.stroke([(214, 416), (236, 421), (256, 422), (276, 421), (298, 416)], LIP_DARK, 2.6)
    painting.fill(ellipse(258, 446, 24, 4), SKIN_SHADE, blur=4, opacity=0.7)
    for side in (list, mirrored):
        painting.fill(side(ellipse(297, 417, 4, 3)), SKIN_DEEP, blur=2, opacity=0.6)
        painting.stroke(side([(288, 384), (303, 400), (306, 418)]), SKIN_SHADE, 4, blur=3, opacity=0.4)


def draw_fringe(painting: Painting) -> None:
    """Hair in front of the face, combed from a parting, with strands of light."""
    painting.fill([(x, y + 5) for x, y in FRINGE], SKIN_DEEP, blur=8, opacity=0.55, within=FACE)
    painting.fill(FRINGE, HAIR, blur=0.7)
    painting.fill(ellipse(350, 210, 60, 110), HAIR_DARK, blur=26, opacity=0.7, within=FRINGE)
    for step in range(7):
        inner = step * 6.0
        left = [
            (258, 114 + step),
            (204 - inner, 148 + inner),
            (166 - inner, 250),
            (152 - inner, 380),
            (156 - inner, 480),
        ]
        right = mirrored(left)
        painting.stroke(left, HAIR_LIGHT, 3.4, blur=1.8, opacity=0.34, within=FRINGE)
        painting.stroke(right, HAIR_LIGHT, 2.6, blur=1.8, opacity=0.2, within=FRINGE)
    for shine in ([(150, 232), (176, 176), (222, 148)], [(300, 146), (334, 168), (360, 214)]):
        painting.stroke(shine, HAIR_LIGHT, 16, blur=9, opacity=0.5, within=FRINGE)
    painting.stroke([(263, 108), (264, 150), (266, 190)], HAIR_DARK, 3, blur=1.2, opacity=0.8)


def draw_hair_behind(painting: Painting) -> None:
    """A bob that ends above the shoulders."""
    painting.fill(HAIR_BEHIND, HAIR_DARK, blur=1)
    for step in range(8):
        x = 122 + step * 5
        strand = [(x + 12, 220), (x, 340), (x + 6, 440), (x + 26 - step * 2, 510)]
        painting.stroke(strand, HAIR, 5, blur=2, opacity=0.8, within=HAIR_BEHIND)
        painting.stroke(mirrored(strand), HAIR, 5, blur=2, opacity=0.5, within=HAIR_BEHIND)


def draw() -> Image.Image:
    """The whole portrait, back to front."""
    painting = Painting()
    draw_wall(painting)
    draw_hair_behind(painting)
    draw_body(painting)
    draw_head(painting)
    draw_nose(painting)
    draw_mouth(painting)
    draw_eye(painting, left=True)
    draw_eye(painting, left=False)
    draw_fringe(painting)
    return painting.finished()


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("portrait.png")
    draw().save(target, optimize=True)
