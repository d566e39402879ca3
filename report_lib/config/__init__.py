"""What a run and a study depend on: Config and the study's parameters, each declared once, and the registries."""

from report_lib.config.fields import DEFECTS, FIELDS, Config
from report_lib.config.parameters import PARAMETERS, resolve
from report_lib.config.plan import Planned, plan
from report_lib.config.presets import decides, has_preset, preset, probe_of
from report_lib.config.registries import APPROACHES, FEW_LABELS, MEANINGS, NETWORKS, PRESETS, TUNED_FOR_FEW
from report_lib.config.seeds import derive_seed
