"""Find every problem of a data set before any work is done."""

from crossvox.data.checks.dataset import check, check_images, check_labels, check_manifest
from crossvox.data.problems import Problem, format_problems, has_errors, raise_on_errors

__all__ = [
    "Problem",
    "check",
    "check_images",
    "check_labels",
    "check_manifest",
    "format_problems",
    "has_errors",
    "raise_on_errors",
]
