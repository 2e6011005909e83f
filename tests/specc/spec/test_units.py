"""Times, sizes and names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from specc.spec.units import LONGEST, NAME, STAGE, format_size, format_time, name_like, parse_size, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4h", 14400),
        ("90m", 5400),
        ("90min", 5400),
        ("30s", 30),
        ("2d", 172800),
        ("1h30m", 5400),
        ("04:00:00", 14400),
        ("4:00:00", 14400),
        ("1-00:00:00", 86400),
        ("2-03:04:05", 183845),
        (" 4h ", 14400),
    ],
)
def test_a_time_is_read_in_every_form_people_write(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", [4, 4.5, True, None, "", "4", "h", "4:00", "1:60:00", "-4h", "4 h m", "367d", "0s", [1]]
)
def test_a_time_without_a_clear_unit_is_refused(text):
    with pytest.raises(PydanticCustomError):
        parse_time(text)


@given(st.integers(1, LONGEST))
def test_a_time_is_read_back_as_it_is_written(seconds):
    assert parse_time(format_time(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GB", 80 * 10**9), ("80GiB", 80 * 2**30), ("1.5TB", 15 * 10**11), ("512 mb", 512 * 10**6)],
)
def test_a_size_tells_thousands_from_1024s(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", [80, "80", "GB", "80XB", "0GB", "-1GB", None, "1e3GB"])
def test_a_size_without_a_clear_unit_is_refused(text):
    with pytest.raises(PydanticCustomError):
        parse_size(text)


@given(st.integers(1, 10**15))
def test_a_size_is_read_back_as_it_is_written(size):
    assert parse_size(format_size(size)) == size


def test_a_name_like_another_is_safe_as_a_folder():
    assert name_like("My Run!", NAME) == "my-run"
    assert name_like("../../etc", NAME) == "etc"
    assert name_like("a.b", STAGE) == "a-b"
    assert name_like("日本", NAME) == ""
