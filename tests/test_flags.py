import argparse

import pytest

from kadence import FineTuneSettings
from kadence._flags import DEFAULTS, add_backbone, add_photos, add_training, settings_of


def parse(*words):
    parser = argparse.ArgumentParser()
    for add in (add_photos, add_backbone, add_training):
        add(parser)
    parser.add_argument("--out")
    return parser.parse_args(words)


def test_the_defaults_are_those_of_the_settings():
    assert settings_of(parse("photos")) == FineTuneSettings(photos="photos")
    assert FineTuneSettings(photos="") == DEFAULTS


def test_every_flag_reaches_its_setting():
    words = "photos --validation val --backbone b --split a,b --image-size 64 --optimizer sgd --weight-decay 0.5"
    words += " --batch-size 7 --no-augment --batch-norm train --seed 3 --strict --out runs"
    expected = FineTuneSettings(
        photos="photos",
        validation="val",
        backbone="b",
        split=("a", "b"),
        image_size=64,
        optimizer="sgd",
        weight_decay=0.5,
        batch_size=7,
        augment=False,
        batch_norm="train",
        seed=3,
        strict=True,
    )
    assert settings_of(parse(*words.split())) == expected


def test_held_out_photos_come_from_one_place(capsys):
    with pytest.raises(SystemExit):
        parse("photos", "--validation", "val", "--validation-fraction", "0.1")
    assert "not allowed with" in capsys.readouterr().err
