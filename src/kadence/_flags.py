"""The flags that `kadence finetune` and `kadence find` have in common, and the settings that they say."""

import argparse

from kadence._terminal import words
from kadence.settings import BATCH_NORM, OPTIMIZERS, FineTuneSettings

DEFAULTS = FineTuneSettings(photos="")


def add_photos(parser: argparse.ArgumentParser) -> None:
    """The photos, and which of them are held out.

    Args:
        parser: Parser of a command; it gets the folder and the flags.
    """
    parser.add_argument("photos", help="folder with one folder of photos per class")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument("--validation", metavar="DIR", help="folder of the same form to validate on")
    held_out.add_argument("--validation-fraction", type=float, default=DEFAULTS.validation_fraction, help="held out")


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """The network and its groups.

    Args:
        parser: Parser of a command; it gets the flags.
    """
    parser.add_argument("--backbone", default=DEFAULTS.backbone, help="pretrained network; `kadence groups --list`")
    parser.add_argument("--split", type=words, metavar="LAYER,LAYER", help="first layers of the later groups")
    parser.add_argument("--image-size", type=int, default=DEFAULTS.image_size, help="side of the images in pixels")


def add_training(parser: argparse.ArgumentParser) -> None:
    """How the network is trained, but for its rates.

    Args:
        parser: Parser of a command; it gets the flags.
    """
    parser.add_argument("--optimizer", default=DEFAULTS.optimizer, choices=list(OPTIMIZERS), help="update rule")
    parser.add_argument("--weight-decay", type=float, help="decoupled; 0.004 for adamw and 0 for others if not given")
    parser.add_argument("--batch-size", type=int, default=DEFAULTS.batch_size, help="in images")
    parser.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True, help="flip, shift, zoom")
    parser.add_argument("--batch-norm", default=DEFAULTS.batch_norm, choices=BATCH_NORM, help="layers of the backbone")
    parser.add_argument("--seed", type=int, default=DEFAULTS.seed, help="of weights, order and augmentation")
    parser.add_argument("--strict", action="store_true", help="a broken photo is an error")


def settings_of(options: argparse.Namespace) -> FineTuneSettings:
    """The settings that the flags say.

    Args:
        options: The parsed flags; those that are no settings are passed over.

    Returns:
        `FineTuneSettings`.

    Raises:
        ValueError: If a value is out of range.
    """
    fields = FineTuneSettings.__dataclass_fields__
    return FineTuneSettings(**{name: value for name, value in vars(options).items() if name in fields})
