"""Data, model and training code behind the notebooks of this report.

Data flows one way:
recipe, disk -> archives, decoded, sources -> data -> model -> features -> train -> runner -> records -> plan
-> measures, stats -> tables, figures, pictures, prose, findings, results -> notebooks -> report.
Everything from `records` on imports no torch, so a finished study can be analysed and rendered anywhere.
"""

__version__ = "0.1.0"
