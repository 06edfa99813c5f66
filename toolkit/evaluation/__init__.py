"""How good the estimates are: known parameters recovered by the network and by every exported file.

run.py       the verb
measures.py  estimates against true values, in numbers
coverage.py  how often intervals hold the true value
result.py    what was found
table.py     what the command prints
page.py      the report: one self-contained HTML page
plots.py     its plots
"""

from toolkit.evaluation.page import write_evaluation_report
from toolkit.evaluation.result import Evaluated, Evaluation
from toolkit.evaluation.run import evaluate
from toolkit.evaluation.table import print_evaluation

__all__ = ["Evaluated", "Evaluation", "evaluate", "print_evaluation", "write_evaluation_report"]
