"""The registries: what can be trained (APPROACHES), how (PRESETS), and which networks. A new one is one entry here."""

import dataclasses

TRAINS = ("head", "last_block", "all")  # parts of a network that an approach may train, from the top down


@dataclasses.dataclass(frozen=True)
class Approach:
    """A way to adapt a pretrained network, and how it looks in figures."""

    name: str  # within a sentence, such as "linear probe"
    trains: str  # one of TRAINS: the head alone, the last block and all above it, or everything
    colour: str  # "#rrggbb"
    marker: str  # of matplotlib
    article: str = ""  # "the " if the name needs it within a sentence

    @property
    def the(self) -> str:
        """The name within a sentence."""
        return self.article + self.name


@dataclasses.dataclass(frozen=True)
class Network:
    """A classification network of torchvision, by the names of its parts."""

    name: str  # as people write it
    head: str  # the module that gives the logits, which a new one replaces
    last_block: str  # the first module of its last block; "last_block" trains it and all that follows
    smallest: int  # pixels a side that leave something after all pooling
    dropout: bool  # whether it has dropout, which two of the published defects need
    citation: str  # in report/references.bib


# Okabe and Ito's palette: apart for colour-blind readers, and of different lightness in grey.
APPROACHES = {
    "linear_probe": Approach("linear probe", trains="head", colour="#0072B2", marker="o", article="the "),
    "full_finetune": Approach("full fine-tuning", trains="all", colour="#D55E00", marker="s"),
}

NETWORKS = {
    "alexnet": Network("AlexNet", "classifier.6", "features.10", 63, True, "krizhevsky2012"),
    "vgg11_bn": Network("VGG-11 (BN)", "classifier.6", "features.22", 32, True, "simonyan2015"),
    "resnet18": Network("ResNet-18", "fc", "layer4", 32, False, "he2016"),
    "mobilenet_v3_small": Network("MobileNetV3-Small", "classifier.3", "features.11", 32, True, "howard2019"),
    "convnext_tiny": Network("ConvNeXt-T", "classifier.2", "features.7", 32, False, "liu2022"),
}

# Fine-tuning as it came out of its search, with many labels per class and with few.
TUNED_FINETUNE = dict(
    epochs=10, learning_rate=1e-3, trunk_rate=1.0, weight_decay=0.05, schedule="cosine", warmup=0.1, start="probe",
    flip=True, shift=0.1,
)  # fmt: skip
FEW_FINETUNE = dict(epochs=5, learning_rate=3e-4, trunk_rate=0.3)

# What each preset sets, by what an approach trains; an approach that trains something else does not have the preset.
# `published` does what the listings of the homework report do; `corrected` is what its text says, and the defaults of
# Config; `tuned` holds the winners of the searches that report/tuning/ records:
# of what is as good as the best, the cheapest.
PRESETS: dict[str, dict[str, dict]] = {
    "published": {
        "head": dict(
            select_on_test=True, unstratified=True, frozen_dropout=True, batch_averages=True, precision="float32",
        ),
        "all": dict(
            select_on_test=True, train_on_all=True, normalisation="half", dropout_ends=True, precision="float32",
        ),
    },
    "corrected": {"head": {}, "last_block": {}, "all": {}},
    "tuned": {
        "head": dict(
            epochs=5, learning_rate=1e-3, weight_decay=1.0, standardise=True, schedule="cosine", flip=True, shift=0.1,
            views=5,
        ),
        "last_block": TUNED_FINETUNE,  # not searched on its own
        "all": TUNED_FINETUNE,
    },
}  # fmt: skip

# What the first page says of each; a preset that is not here is only named there.
MEANINGS = {
    "published": "does what the homework’s listings do, defects included",
    "corrected": "has plain default settings",
    "tuned": "adds a falling learning rate, weight decay, augmentation, and scaled features or a probe’s head to start "
    "from, searched on validation images",
}

# With so few labels per class, or fewer, `tuned` has what was searched for few labels instead.
FEW_LABELS = 100
TUNED_FOR_FEW: dict[str, dict] = {
    "head": dict(epochs=5, learning_rate=1e-3, weight_decay=0.1),
    "last_block": FEW_FINETUNE,
    "all": FEW_FINETUNE,
}
