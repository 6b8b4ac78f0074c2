"""The data set ``emoji64``: Noto's colour emoji rendered at 64x64 on white; labelled RGB images of the size used in the paper.

The images are drawn from a font and a list of emoji on this machine, so their number depends on the versions of both (3,641
with font 2.042 and Unicode 15.0). ``describe`` states which versions a pack was made from.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

# The groups of emoji-test.txt that have images; the tenth group, "Component", has only parts of other emoji.
CLASS_NAMES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
VARIABLE = "UMD_BENCH_EMOJI"
FONT_FILE, LIST_FILE = "NotoColorEmoji.ttf", "emoji-test.txt"
DEBIAN_FOLDERS = {FONT_FILE: Path("/usr/share/fonts/truetype/noto"), LIST_FILE: Path("/usr/share/unicode/emoji")}
SIZE = 64
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1  # of the base emoji of a group
# No font has glyphs for these. The first, a noncharacter, shows how the font draws a missing glyph; the second, the flag of no
# country, how it draws a missing flag.
_MISSING = ("\U0010ffff", "\U0001f1fd\U0001f1fd")
_BITMAP_SIZE = 109  # the only size of the font's bitmaps, in pixels per em
_LINE = re.compile(r"(?P<points>[0-9A-F ]+);\s*fully-qualified\s*#\s*\S+\s+E\d+\.\d+\s+(?P<name>.+)")

_JOINER, _PERSON = 0x200D, 0x1F9D1
_TONES = range(0x1F3FB, 0x1F400)
_PRESENTATION = 0xFE0F
_JOINED_VARIANTS = (0x2640, 0x2642, 0x27A1)  # after a joiner: female, male, facing right
_MAN_WOMAN = (0x1F468, 0x1F469)
# A pair of people is one code point if both are alike, and a sequence if their skin tones or genders differ. An entry on the
# left has the base on the right.
_SAME_BASE = {
    (_PERSON, 0x2764, 0x1F48B, _PERSON): (0x1F48F,),  # kiss
    (_PERSON, 0x2764, _PERSON): (0x1F491,),  # couple with heart
    (_PERSON, 0x1F91D, _PERSON): (0x1F46B,),  # holding hands
    (0x1F46C,): (0x1F46B,),  # men holding hands
    (0x1F46D,): (0x1F46B,),  # women holding hands
    (0x1FAF1, 0x1FAF2): (0x1F91D,),  # handshake
}


class Emoji(NamedTuple):
    """One fully-qualified line of emoji-test.txt."""

    points: tuple[int, ...]
    name: str
    group: str


def read(folder: Path | None) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The "train", "validation" and "test" splits: images uint8 [N, 3, 64, 64] RGB, labels int64 [N], the index in CLASS_NAMES.

    Every fully-qualified emoji is drawn at the font's own 136x128 on a white 136x136 square and reduced by Lanczos. Emoji that
    the font lacks, and images that are equal to an earlier one, are left out. All variants of an emoji (skin tone, gender) have
    one *base*. The bases of each group are ordered by :func:`derive_seed`: the first fifth is the test split, the next tenth
    the validation split. So no variant of an emoji of these splits is trained on.

    The font and the list are read from ``folder``, else from $UMD_BENCH_EMOJI, else from where Debian's packages
    ``fonts-noto-color-emoji`` and ``unicode-data`` put them. Raises :class:`UserError` if one is missing or cannot be used.
    """
    font_path, list_path = locate(folder)
    font = _open_font(font_path)
    listed = parse_list(_read_list(list_path), str(list_path))
    kept: list[Emoji] = []
    images: list[NDArray[np.uint8]] = []
    seen = {_render(font, text).tobytes() for text in _MISSING}
    for emoji, text in _drawable(font, listed):
        image = _render(font, text)
        if image.tobytes() not in seen:
            seen.add(image.tobytes())
            kept.append(emoji)
            images.append(image)
    if not kept:
        raise UserError(f"{font_path} draws none of the emoji of {list_path}: give the colour font {FONT_FILE}")
    split = np.array(splits_by_base(kept))
    all_images = np.stack(images).transpose(0, 3, 1, 2)
    labels = np.array([CLASS_NAMES.index(emoji.group) for emoji in kept], dtype=np.int64)
    return {name: (all_images[split == name], labels[split == name]) for name in ("train", "validation", "test")}


def describe(folder: Path | None, n_kept: int) -> dict[str, str]:
    """Notes for a pack's manifest: the files that the images were drawn from, and how many emoji were left out and why."""
    font_path, list_path = locate(folder)
    text = _read_list(list_path)
    font = _open_font(font_path)
    listed = parse_list(text, str(list_path))
    version = re.search(r"^# Version: (\S+)", text, re.MULTILINE)
    n_drawable = sum(1 for _ in _drawable(font, listed))
    return {
        "font": f"{font_path.name}, SHA-256 {hashlib.sha256(font_path.read_bytes()).hexdigest()}",
        "list": f"{list_path.name} {version[1] if version else 'of unknown version'}",
        "listed": f"{len(listed)} fully-qualified emoji",
        "left out, not one glyph of the font": str(len(listed) - n_drawable),
        "left out, a missing glyph or an image that came before": str(n_drawable - n_kept),
    }


def locate(folder: Path | None) -> tuple[Path, Path]:
    """The paths of the font and the list: in ``folder``, else in $UMD_BENCH_EMOJI, else where Debian puts them.

    Raises :class:`UserError` if a file is missing.
    """
    variable = os.environ.get(VARIABLE)
    stated = folder if folder is not None else Path(variable) if variable else None
    paths = [(stated if stated is not None else debian) / file for file, debian in DEBIAN_FOLDERS.items()]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"emoji64: there is no {' and no '.join(missing)}; install Debian's packages fonts-noto-color-emoji and "
            f"unicode-data, or put {FONT_FILE} and {LIST_FILE} into one folder and name it in ${VARIABLE}"
        )
    return paths[0], paths[1]


def parse_list(text: str, where: str) -> list[Emoji]:
    """The fully-qualified emoji of an ``emoji-test.txt`` (Unicode, UTS #51), in the file's order.

    Raises :class:`UserError`, naming ``where``, if the text lists none, and if one is in a group that is not in CLASS_NAMES.
    """
    emoji: list[Emoji] = []
    group = ""
    for line in text.splitlines():
        if line.startswith("# group:"):
            group = line.removeprefix("# group:").strip()
        elif match := _LINE.fullmatch(line.strip()):
            if group not in CLASS_NAMES:
                raise UserError(f"{where} has the group {group!r}: expected one of {', '.join(CLASS_NAMES)}")
            points = tuple(int(point, 16) for point in match["points"].split())
            emoji.append(Emoji(points, match["name"], group))
    if not emoji:
        raise UserError(f"{where} lists no fully-qualified emoji: give Unicode's {LIST_FILE}")
    return emoji


def base(points: Sequence[int]) -> tuple[int, ...]:
    """The code points without skin tone, gender, direction and joiners. The result is equal for all variants of an emoji."""
    kept = [
        _PERSON if point in _MAN_WOMAN else point
        for before, point in zip((0, *points), points, strict=False)
        if point not in _TONES
        and point not in (_JOINER, _PRESENTATION)
        and not (before == _JOINER and point in _JOINED_VARIANTS)
    ]
    return _SAME_BASE.get(tuple(kept), tuple(kept))


def splits_by_base(emoji: Sequence[Emoji]) -> list[str]:
    """The split of each emoji; all emoji with the same base are in the same split.

    In each group the bases are ordered by :func:`derive_seed`: the first fifth is "test", the next tenth "validation", the
    rest "train". A base whose emoji are in several groups is counted in the group of the first of them only.
    """
    groups: dict[str, list[tuple[int, ...]]] = {}
    for key, group in {base(one.points): one.group for one in reversed(emoji)}.items():
        groups.setdefault(group, []).append(key)
    split: dict[tuple[int, ...], str] = {}
    for keys in groups.values():
        keys.sort(key=lambda key: derive_seed(0, "emoji64/split", *key))
        n_test, n_validation = round(TEST_SHARE * len(keys)), round(VALIDATION_SHARE * len(keys))
        split |= dict.fromkeys(keys[:n_test], "test") | dict.fromkeys(keys[n_test : n_test + n_validation], "validation")
    return [split.get(base(one.points), "train") for one in emoji]


def _read_list(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: give Unicode's {LIST_FILE}") from None


def _open_font(path: Path) -> FreeTypeFont:
    from PIL import ImageFont, features

    if not features.check("raqm"):
        raise UserError("emoji64 needs a Pillow with Raqm, which joins the parts of an emoji; install Pillow's own wheel")
    try:
        # Pass the content: given a path that it cannot open, Pillow uses a system font of the same name.
        return ImageFont.truetype(io.BytesIO(path.read_bytes()), _BITMAP_SIZE, layout_engine=ImageFont.Layout.RAQM)
    except OSError as error:
        raise UserError(
            f"{path} cannot be opened at {_BITMAP_SIZE} pixels ({error}): give the bitmap (CBDT) build of {FONT_FILE}"
        ) from None


def _drawable(font: FreeTypeFont, listed: Sequence[Emoji]) -> Iterator[tuple[Emoji, str]]:
    """The emoji that the font draws as one glyph, with their text. An emoji that it draws in parts is wider than one glyph."""
    width = font.getlength("\U0001f600")
    for emoji in listed:
        text = "".join(map(chr, emoji.points))
        if font.getlength(text) == width:
            yield emoji, text


def _render(font: FreeTypeFont, text: str) -> NDArray[np.uint8]:
    """``text`` in colour on white: uint8 [64, 64, 3], RGB."""
    from PIL import Image, ImageDraw

    square = Image.new("RGB", (136, 136), "white")
    ImageDraw.Draw(square).text((0, 4), text, font=font, embedded_color=True)
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
