"""The task families that a config file may name: to add a family, import its section here and add it to the union."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from circuitdrift.tasks.add_sub import AddSubTask
from circuitdrift.tasks.capital_country import CapitalCountryTask
from circuitdrift.tasks.comparison import ComparisonTask
from circuitdrift.tasks.complex_ioi import ComplexIoiTask
from circuitdrift.tasks.compositional import CompositionalTask
from circuitdrift.tasks.from_file import FileTask
from circuitdrift.tasks.function import FunctionTask
from circuitdrift.tasks.lcm import LcmTask
from circuitdrift.tasks.mul_div import MulDivTask
from circuitdrift.tasks.sequence import SequenceTask
from circuitdrift.tasks.sub_tasks import SubTask

TaskConfig = Annotated[
    AddSubTask
    | MulDivTask
    | SequenceTask
    | LcmTask
    | FunctionTask
    | CompositionalTask
    | SubTask
    | ComparisonTask
    | ComplexIoiTask
    | CapitalCountryTask
    | FileTask,
    Field(discriminator="family"),
]
