"""Data, model and training code behind the notebooks of this report.

Data flows one way:
recipe -> sources -> data -> model -> train -> records -> stats -> tables, figures, prose -> notebooks -> report.
Everything from `records` on imports no torch, so a finished study can be analysed and rendered anywhere.
"""

__version__ = "0.1.0"
