"""Transformers' own tests on our classes: all pass but those of `exceptions.py`, which fail."""

import re

import pytest
from peers.exceptions import EXCEPTIONS
from peers.run import FILES, run_file
from peers.source import find_tests

pytestmark = pytest.mark.slow
TESTERS = {"peer_models": {"TestModels"}, "peer_processors": {"TestProcessor"}, "peer_videos": {"TestVideoProcessor"}}


@pytest.fixture(scope="session")
def source():
    pytest.importorskip("parameterized", reason="Transformers' tests need it")
    try:
        return find_tests()
    except LookupError as error:
        pytest.skip(str(error))


def without_parameters(test: str) -> str:
    """`test_reads_00_fp16` is a case of `test_reads`."""
    return re.sub(r"_\d+(_.*)?$", "", test)


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("name", FILES)
def test_exactly_the_exceptions_fail(name):
    found = run_file(name)
    assert found.keys() >= TESTERS[name]
    for tester, results in found.items():
        expected = set(EXCEPTIONS.get(tester, ()))
        failed = {
            test: message for test, message in results.failed.items() if without_parameters(test) not in expected
        }
        assert failed == {}, tester
        assert expected <= set(map(without_parameters, results.failed)), f"{tester}: an exception fails no more"
        assert not expected & set(map(without_parameters, results.passed)), f"{tester}: an exception passes in part"
