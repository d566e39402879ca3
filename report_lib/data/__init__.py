"""The pictures a run is trained on: read from any source, decoded once, split, and prepared on the device."""

import gc

from report_lib.data.decoded import cache_limit, make_room
from report_lib.data.pictures import read_picture
from report_lib.data.sources import fingerprint, load
from report_lib.data.tensors import NORMALISATION, Images, augment, check, preprocess, split

# Torch, which is loaded by now, stays to the end: to look through it again and again takes 0.7 s of each process.
gc.freeze()
