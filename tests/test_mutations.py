"""The lines that `tests.mutations` breaks are there, and so are the tests that notice; whether they do is for make."""

import pytest

from tests.mutation import Mutation
from tests.mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_breaks_one_line(mutation: Mutation) -> None:
    assert mutation.apply(ROOT) != (ROOT / mutation.path).read_text()
    assert (ROOT / mutation.tests).is_file()
