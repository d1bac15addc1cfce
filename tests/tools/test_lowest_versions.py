from tools.lowest_versions import constraints


def test_every_dependency_has_a_lowest_version_and_torch_that_of_the_lock():
    lines = constraints()
    assert all(line.count("==") == 1 and ">" not in line for line in lines)
    assert {"numpy==2.0", "pandas==2.2.2"} <= set(lines)
    assert [line for line in lines if line.startswith("torch")] == ["torch==2.13.0"]
