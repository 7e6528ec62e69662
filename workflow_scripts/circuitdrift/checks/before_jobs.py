"""Everything about a study that is checked before any job starts, beyond its config file alone."""

from __future__ import annotations

from circuitdrift.checks.devices import missing_device
from circuitdrift.checks.fit import problems_of_fit, problems_of_given_ranks
from circuitdrift.checks.given import problems_of_given, warnings_of_given
from circuitdrift.checks.senseless import senseless_values
from circuitdrift.checks.tasks import problems_of_tasks
from circuitdrift.config.models import LocalModel
from circuitdrift.config.reading import ConfigError, listed
from circuitdrift.models.folder import problem_of_folder
from circuitdrift.models.shapes import shape_at_hand
from circuitdrift.study import Study


def check_study(study: Study) -> list[str]:
    """Check local models and checkpoints, what methods and circuits ask of known shapes, and what is asked of tasks.

    Returns:
        One line for each value that is legal but senseless.

    Raises:
        ConfigError: one line for each value that cannot be had: the key, the problem and the fix.
    """
    config = study.config
    shapes = {name: shape_at_hand(model) for name, model in config.models.items()}
    problems = problems_of_tasks(study)
    for name, model in config.models.items():
        if isinstance(model, LocalModel) and (problem := problem_of_folder(model.path)):
            problems.append(f"models.{name}.path: {problem}")
        elif shape := shapes[name]:
            problems += problems_of_fit(name, shape, config.methods, config.circuit)
            problems += problems_of_given_ranks(name, shape, config.given) if model.checkpoints else []
    problems += problems_of_given(study)
    if problems:
        raise ConfigError(listed(f"study '{config.study}' cannot be run", problems))
    missing = missing_device(config.execution.device)
    return [*senseless_values(study, shapes), *warnings_of_given(study), *([missing] if missing else [])]
