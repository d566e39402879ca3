"""What runs show: statistics, measures, comparisons between approaches, results.json."""

from report_lib.evidence.measures import Comparison, accuracy, compare, comparisons
from report_lib.evidence.results import report_numbers, results
