"""The exercises: each has a hint and a solution, is open at first, and its solution is called right.

A notebook's exercises begin with the cell `given`, which imports all that they need. `answer-1`, `answer-2`, ... hold
three dots and end with a check; the cell `solutions` holds a block of code for each, folded.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from ktlslab.course.verdicts import Mark
from ktlslab.show import tables

FOLDER = Path(__file__).parents[2] / "notebooks"
SOLVABLE = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def cells(name):
    found = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    return {cell["id"]: "".join(cell["source"]) for cell in found}


def answers(name):
    """Return the cells that wait for an answer, by number."""
    return {int(key[7:]): source for key, source in cells(name).items() if key.startswith("answer-")}


def solutions(name):
    """Return the folded solutions by number."""
    folded = cells(name)["solutions"]
    assert folded.startswith("<details><summary>Solutions</summary>")
    assert folded.endswith("</details>")
    return {int(number): code for number, code in re.findall(r"```python\n# (\d+)\n(.*?)```", folded, re.DOTALL)}


def run(source, names):
    """Execute a cell and return the value of its last line."""
    *body, last = ast.parse(source).body
    exec(compile(ast.Module(body, []), "<cell>", "exec"), names)  # noqa: S102 - the notebook's own code
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)  # noqa: S307


@pytest.fixture
def names(request, monkeypatch):
    """Run what the exercises are given, in the notebooks' folder."""
    monkeypatch.chdir(FOLDER)
    monkeypatch.setenv(tables.VARIABLE, str(FOLDER.parent / "data/quick.parquet"))
    found = {}
    run(cells(request.param)["given"], found)
    return found


@pytest.mark.parametrize("name", SOLVABLE)
def test_an_exercise_has_a_task_a_hint_and_a_solution(name):
    numbers = range(1, len(answers(name)) + 1)
    assert 3 <= len(numbers) <= 5
    assert list(answers(name)) == list(solutions(name)) == list(numbers)
    for number in numbers:
        task = cells(name)[f"exercise-{number}"] + cells(name).get(f"exercise-{number}-hint", "")
        assert task.startswith(f"**{number} ")
        assert "<details><summary>Hint</summary>" in task
        assert "..." in answers(name)[number]


@pytest.mark.parametrize(("name", "names"), [(name, name) for name in SOLVABLE], indirect=["names"])
def test_before_it_is_answered_an_exercise_is_open_and_its_solution_is_right(name, names):
    for number, source in answers(name).items():
        assert run(source, names).mark is Mark.OPEN
        check = source.splitlines()[-1]
        verdict = run(f"{solutions(name)[number]}\n{check}", names)
        assert verdict.mark is Mark.RIGHT, f"{name}, exercise {number}: {verdict}"
