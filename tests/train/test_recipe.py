"""Recipes: what survives JSON, what is refused."""

import subprocess
import sys

import pytest

from tests.train.toys import recipe
from tsfm_lib.errors import TsfmError
from tsfm_lib.paths import ROOT
from tsfm_lib.train import Recipe
from tsfm_lib.train.recipe import differences
from tsfm_lib.train.recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json(name):
    assert RECIPES[name].name == name
    assert Recipe.from_json(RECIPES[name].to_json()) == RECIPES[name]


def test_whole_numbers_and_tuples_are_as_good_as_floats_and_lists():
    a = Recipe("a", "m", {"sizes": (1, 2)}, minutes=10, betas=(0, 0.5), clip=1)
    assert a == Recipe("a", "m", {"sizes": [1, 2]}, minutes=10.0, betas=(0.0, 0.5), clip=1.0) == Recipe.from_json(a.to_json())


@pytest.mark.parametrize(("changes", "said"), [
    ({"steps": None}, "a budget of either steps or minutes, got steps=None and minutes=None"),
    ({"minutes": 1.0}, "either steps or minutes"),
    ({"steps": 0}, "steps should be above 0, got 0"),
    ({"batch": -1}, "batch should be above 0"),
    ({"rate": 0.0}, "rate should be above 0"),
    ({"augment": 1.5}, "augment should lie in 0..1, got 1.5"),
    ({"ema": 1.0}, "ema should lie in"),
    ({"seed": -1}, "seed should lie in"),
    ({"precision": "bf61"}, "did you mean 'bf16'"),
    ({"matrices": "("}, "regular expression"),
    ({"betas": (0.9, 1.0)}, "betas should be two numbers"),
    ({"steps": True}, "steps should be a whole number, got True"),
    ({"steps": None, "minutes": float("inf")}, "minutes should be a number, got inf"),
    ({"config": {"sizes": {1}}}, "config should be a dictionary that JSON can hold"),
])  # fmt: skip
def test_impossible_recipes_are_refused(changes, said):
    with pytest.raises(TsfmError, match=said):
        recipe(**changes)


WRONG = {
    '"steps": 2.5': "recipe a: steps should be a whole number, got 2.5",
    '"steps": "3"': "recipe a: steps should be a whole number, got '3'",
    '"steps": 3, "seed": 1.5': "recipe a: seed should be a whole number, got 1.5",
    '"steps": 3, "batch": null': "recipe a: batch should be a whole number, got None",
    '"steps": 3, "rate": "fast"': "recipe a: rate should be a number, got 'fast'",
    '"steps": 3, "betas": 0.9': "recipe a: betas should be two numbers in 0..1, got 0.9",
    '"steps": 3, "mixture": 4': "recipe a: mixture should be text, got 4",
    '"steps": 3.0': '"steps": 3,',                             # as written by tools that know no whole numbers; stored as one
}


def test_values_of_another_type_are_refused_outside_the_tests_too():
    """In a process of its own: here the type checker speaks first."""
    asked = f"""
from tsfm_lib.errors import TsfmError
from tsfm_lib.train import Recipe
for fields in {[*WRONG]!r}:
    try:
        made = Recipe.from_json('{{"name": "a", "model": "m", ' + fields + '}}').to_json()
        print(next(line for line in made.splitlines() if "steps" in line))
    except TsfmError as refused:
        print(refused)
"""
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True)
    assert [line.strip() for line in done.stdout.splitlines()] == [*WRONG.values()], done.stderr


def test_foreign_or_broken_json_is_refused():
    with pytest.raises(TsfmError, match="no field 'step'; did you mean 'steps'"):
        Recipe.from_json('{"name": "a", "model": "m", "step": 3}')
    with pytest.raises(TsfmError, match="missing here: model"):
        Recipe.from_json('{"name": "a", "steps": 3}')
    with pytest.raises(TsfmError, match="a JSON object of fields, got a list"):
        Recipe.from_json("[1]")
    with pytest.raises(TsfmError, match="breaks off at line 1"):
        Recipe.from_json('{"name": ')


def test_another_budget_replaces_the_old_one():
    a = recipe(steps=5)
    assert a.with_budget(minutes=2).steps is None and a.with_budget(minutes=2).minutes == 2.0 and a.with_budget() is a
    assert differences(a, a.with_budget(steps=6)) == "steps 5 / 6" and differences(a, recipe(steps=5, notes="other words")) == ""
