"""What policies that do not learn would have earned, from a log of any length: estimates, and differences.

question  what is asked: policies, estimators, what the log can answer and what it cannot
source    the log as it is read for that, chunk by chunk, as often as needed
evaluate  `evaluate_log`: the chunks folded into a statistic
compare   `compare_log`: the evidence of all chunks held together, for paired differences
answer    `Evaluation`: the results, stored and returned
"""

from counterplay.estimators.intervals import Bounds, Interval
from counterplay.replay.evaluation.answer import Evaluation
from counterplay.replay.evaluation.compare import compare_log
from counterplay.replay.evaluation.evaluate import evaluate_log

__all__ = ["Bounds", "Evaluation", "Interval", "compare_log", "evaluate_log"]
