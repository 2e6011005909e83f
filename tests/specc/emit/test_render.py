"""The three doors by which a value enters a script."""

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.emit.render import EmitError, directive, plain_name, render, sh, variable

printable = st.text(st.characters(exclude_categories=["Cc", "Cs"]))


@given(printable)
def test_a_quoted_value_is_one_shell_word_that_means_itself(value):
    assert shlex.split(sh(value)) == [value]


@pytest.mark.parametrize("value", ["$(touch /tmp/x)", "`id`", "a'b\"c", "$HOME", "a;b", "-n", "*", "ünï ☃"])
def test_bash_reads_a_quoted_value_as_it_was(value):
    done = subprocess.run(
        ["bash", "-c", f"printf %s {sh(value)}"], capture_output=True, text=True, check=True
    )
    assert done.stdout == value


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\0", "\x1b[31m"])
def test_control_characters_go_into_no_script(value):
    with pytest.raises(EmitError, match="control character"):
        sh(value)
    with pytest.raises(EmitError, match="control character"):
        directive("--comment", value)


@pytest.mark.parametrize(
    ("flag", "value", "line"),
    [
        ("--nodes", "2", "--nodes=2"),
        ("--exclusive", "", "--exclusive"),
        ("-C", "ib", "-C ib"),
        ("--comment", 'two "words"', '--comment="two \\"words\\""'),
        ("--comment", "a # b", '--comment="a # b"'),
        ("--constraint", "[a|b]&c", "--constraint=[a|b]&c"),
        ("--gres", "gpu:h100:8", "--gres=gpu:h100:8"),
    ],
)
def test_a_directive_is_written_as_sbatch_reads_it(flag, value, line):
    assert directive(flag, value) == line


@pytest.mark.parametrize("flag", ["nodes", "--a b", "--x;id", "", "--", "-xy"])
def test_what_is_no_flag_is_refused(flag):
    with pytest.raises(EmitError, match="not an sbatch flag"):
        directive(flag, "1")


@pytest.mark.parametrize("name", ["../up", "a b", "", ".hidden", "-n", "a/b", "a$b", "a\nb"])
def test_a_name_that_is_not_safe_bare_is_refused(name):
    with pytest.raises(EmitError, match="cannot be a file name"):
        plain_name(name, "the stage")


@pytest.mark.parametrize("name", ["1A", "A-B", "", "A=B", "A B", "A\n"])
def test_what_a_shell_would_not_take_as_a_variable_is_refused(name):
    with pytest.raises(EmitError, match="cannot be an environment variable"):
        variable(name)


def test_a_name_that_a_template_misses_is_an_error_and_not_an_empty_string():
    with pytest.raises(Exception, match="'plan' is undefined"):
        render("submit.sh.j2", scripts=())
