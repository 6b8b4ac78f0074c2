"""Emoji: the list has Unicode's format, variants of an emoji share a base, and no base is in two splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from umd_bench.config.errors import UserError
from umd_bench.data.builtin import emoji64
from umd_bench.data.builtin.emoji64 import Emoji, base, parse_list, splits_by_base
from umd_bench.data.open_data import open_pack
from umd_bench.data.packs.manifest import data_root

SNIPPET = """\
# Version: 15.0
# group: Smileys & Emotion
# subgroup: face-smiling
1F600                                                  ; fully-qualified     # 😀 E1.0 grinning face
263A FE0F                                              ; fully-qualified     # ☺️ E0.6 smiling face
263A                                                   ; unqualified         # ☺ E0.6 smiling face
# group: Component
1F3FB                                                  ; component           # 🏻 E1.0 light skin tone
# group: Symbols
0023 FE0F 20E3                                         ; fully-qualified     # #️⃣ E0.6 keycap: #
# Status Counts
"""


def test_only_fully_qualified_emoji_are_parsed() -> None:
    assert parse_list(SNIPPET, "here") == [
        Emoji((0x1F600,), "grinning face", "Smileys & Emotion"),
        Emoji((0x263A, 0xFE0F), "smiling face", "Smileys & Emotion"),
        Emoji((0x23, 0xFE0F, 0x20E3), "keycap: #", "Symbols"),
    ]


def test_a_list_without_emoji_is_refused() -> None:
    with pytest.raises(UserError, match="here lists no fully-qualified emoji"):
        parse_list("# group: Symbols\n", "here")


def test_a_group_without_a_class_is_refused() -> None:
    with pytest.raises(UserError, match="here has the group 'Shapes': expected one of Smileys"):
        parse_list(SNIPPET.replace("Symbols", "Shapes"), "here")


@pytest.mark.parametrize(
    "variants",
    [
        "👋 👋🏻 👋🏿",
        "🏃 🏃🏽 🏃‍♂️ 🏃🏽‍♀️ 🏃‍➡️ 🏃🏿‍♀️‍➡️",
        "🧑 👨 👩 👩🏾",
        "🧑‍🍳 👨‍🍳 👩🏼‍🍳",
        "💏 💏🏻 👩‍❤️‍💋‍👨 👨🏻‍❤️‍💋‍👨🏿 🧑🏻‍❤️‍💋‍🧑🏼",
        "💑 👩🏽‍❤️‍👩🏿 🧑🏻‍❤️‍🧑🏼",
        "👫 👬 👭 👫🏻 👩🏻‍🤝‍👨🏼 🧑‍🤝‍🧑",
        "🤝 🤝🏻 🫱🏻‍🫲🏿",
    ],
)
def test_variants_share_a_base(variants: str) -> None:
    assert len({base([ord(c) for c in text]) for text in variants.split()}) == 1


@pytest.mark.parametrize("others", ["🏃 🚶", "🧑‍🍳 🧑‍🎓", "♀️ ♂️", "🇪🇸 🇫🇷", "🧑‍🦰 🧑‍🦱", "⬅️ ➡️", "❤️ ❤️‍🔥", "👪 👨‍👩‍👧"])
def test_different_emoji_keep_their_own_base(others: str) -> None:
    one, two = others.split()
    assert base([ord(c) for c in one]) != base([ord(c) for c in two])


def made_up(bases: range, group: str) -> list[Emoji]:
    """Every base without and with each of five skin tones."""
    return [Emoji((b, *tone), str(b), group) for b in bases for tone in ((), *((t,) for t in range(0x1F3FB, 0x1F400)))]


def test_a_fifth_of_each_groups_bases_is_the_test_split_and_a_tenth_the_validation_split_with_all_variants() -> None:
    emoji = made_up(range(100, 140), "Symbols") + made_up(range(200, 220), "Objects")
    split_of = {(one.points[0], split) for one, split in zip(emoji, splits_by_base(emoji), strict=True)}
    assert len(split_of) == 60
    counts = {(split, group): 0 for split in ("train", "validation", "test") for group in (1, 2)}
    for point, split in split_of:
        counts[split, point // 100] += 1
    assert list(counts.values()) == [28, 14, 4, 2, 8, 4]


def test_the_split_does_not_depend_on_the_lists_order() -> None:
    emoji = made_up(range(100, 140), "Symbols")
    assert splits_by_base(emoji[::-1]) == splits_by_base(emoji)[::-1]


def test_the_error_for_missing_files_names_the_packages_and_the_variable(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no .*NotoColorEmoji\.ttf and no .*unicode-data.*UMD_BENCH_EMOJI"):
        emoji64.read(tmp_path)


def test_the_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(emoji64.VARIABLE, str(tmp_path))
    (tmp_path / emoji64.FONT_FILE).touch()
    (tmp_path / emoji64.LIST_FILE).touch()
    assert emoji64.locate(None) == (tmp_path / emoji64.FONT_FILE, tmp_path / emoji64.LIST_FILE)


def test_a_file_that_is_no_colour_font_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / emoji64.FONT_FILE).write_bytes(b"not a font")
    (tmp_path / emoji64.LIST_FILE).write_text(SNIPPET, encoding="utf-8")
    with pytest.raises(UserError, match="cannot be opened at 109 pixels"):
        emoji64.read(tmp_path)


@pytest.fixture
def debian_folder(tmp_path: Path) -> Path:
    """A folder with Debian's font, to which a test adds its own list of emoji."""
    font = emoji64.DEBIAN_FOLDERS[emoji64.FONT_FILE] / emoji64.FONT_FILE
    if not font.is_file():
        pytest.skip(f"{font} is not installed (Debian's fonts-noto-color-emoji): nothing is rendered here")
    (tmp_path / emoji64.FONT_FILE).symlink_to(font)
    return tmp_path


def test_missing_glyphs_and_repeated_images_are_left_out_and_counted(debian_folder: Path) -> None:
    flags = ("1F1EA 1F1F8", "1F1EA 1F1E6", "1F1EB 1F1F7", "E123", "1F1E6 1F1E6", "1F468 200D 1F984")
    names = ("Spain", "Ceuta & Melilla, as Spain", "France", "no glyph", "no country", "two glyphs")
    lines = [f"{points} ; fully-qualified # x E1.0 flag: {name}" for points, name in zip(flags, names, strict=True)]
    (debian_folder / emoji64.LIST_FILE).write_text("\n".join(["# group: Flags", *lines]), encoding="utf-8")
    splits = emoji64.read(debian_folder)
    assert sum(len(labels) for _, labels in splits.values()) == 2
    notes = emoji64.describe(debian_folder, 2)
    assert notes["listed"].startswith("6 ")
    assert [count for note, count in notes.items() if note.startswith("left out")] == ["1", "3"]


def test_a_list_that_the_font_cannot_draw_is_a_user_error(debian_folder: Path) -> None:
    (debian_folder / emoji64.LIST_FILE).write_text("# group: Flags\nE123 ; fully-qualified # x E1.0 none\n", encoding="utf-8")
    with pytest.raises(UserError, match="draws none of the emoji"):
        emoji64.read(debian_folder)


def test_an_image_is_in_colour_upright_and_on_white(debian_folder: Path) -> None:
    listed = ["# group: Flags", "1F1F5 1F1F1 ; fully-qualified # x E1.0 flag: Poland"]  # white above red
    (debian_folder / emoji64.LIST_FILE).write_text("\n".join(listed), encoding="utf-8")
    image = emoji64.read(debian_folder)["train"][0][0].astype(int)
    assert image.shape == (3, 64, 64)
    assert np.all(image[:, 0] == 255)
    red, green, blue = image[:, 44, 32]
    assert red > 180 > 80 > max(green, blue)
    assert image[:, 22, 32].min() > 220


@pytest.mark.slow
def test_the_whole_list_gives_every_group_its_share_of_test_and_validation_images() -> None:
    try:
        emoji64.locate(None)
    except UserError as missing:
        pytest.skip(f"nothing is rendered here: {missing}")
    packed = open_pack("emoji64", data_root())
    counts = {name: np.bincount(packed.split(name).labels) for name in packed.manifest.counts}
    total = sum(counts.values())
    assert total.sum() > 3000
    for name, least, most in (("test", 0.1, 0.3), ("validation", 0.05, 0.15)):
        assert least < (counts[name] / total).min() <= (counts[name] / total).max() < most
