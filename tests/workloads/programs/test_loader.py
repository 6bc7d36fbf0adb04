"""What the user types becomes a program, or one clear line."""

import textwrap

import jax
import jax.numpy as jnp
import pytest

from workloads.errors import WorkloadError
from workloads.programs import SUITE, loader

GOOD = """
    import jax, jax.numpy as jnp
    def program():
        return (lambda x: x + 1), (jax.ShapeDtypeStruct((8, 128), jnp.float32),)
"""


def write(tmp_path, text, name="model.py"):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    return path


def message_of(spec):
    with pytest.raises(WorkloadError) as caught:
        loader.load_program(str(spec))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


@pytest.mark.parametrize("name", SUITE)
def test_every_suite_program_traces_and_is_abstract(name):
    with jax.numpy_rank_promotion("allow"):  # models add biases as everybody does
        program = loader.load_program(name)
        assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(program.args))
        assert jax.tree.leaves(jax.eval_shape(program.fn, *program.args))
    assert SUITE[name].__doc__.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", ["decode", "decode_gqa"])
def test_decode_weights_and_cache_are_well_above_the_largest_alternate_memory(name):
    leaves = jax.tree.leaves(loader.load_program(name).args)
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) > 4 * (112 << 20)


def test_a_file_loads_and_its_spec_is_absolute(tmp_path, monkeypatch):
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    program = loader.load_program("model.py:program")
    assert program.name == "model:program"
    assert program.spec == f"{tmp_path}/model.py:program"
    assert program.args[0].shape == (8, 128)


def test_concrete_arguments_become_abstract(tmp_path):
    path = write(
        tmp_path,
        """
        import numpy as np
        def program():
            return (lambda tree: tree["a"]), ({"a": np.zeros((2, 3), np.int32)},)
        """,
    )
    (tree,) = loader.load_program(f"{path}:program").args
    assert tree["a"] == jax.ShapeDtypeStruct((2, 3), jnp.int32)


def test_a_file_may_import_its_siblings_and_leaves_no_path_behind(tmp_path):
    import sys

    write(tmp_path, "WIDTH = 256\n", "sibling_of_model.py")
    path = write(
        tmp_path,
        """
        import jax, jax.numpy as jnp
        from sibling_of_model import WIDTH
        def program():
            return (lambda x: x), (jax.ShapeDtypeStruct((WIDTH,), jnp.float32),)
        """,
    )
    before = list(sys.path)
    assert loader.load_program(f"{path}:program").args[0].shape == (256,)
    assert sys.path == before


def test_a_file_named_like_a_module_does_not_replace_it(tmp_path):
    path = write(tmp_path, GOOD, "json.py")
    loader.load_program(f"{path}:program")
    import json

    assert json.dumps([1]) == "[1]"


@pytest.mark.parametrize(
    ("spec", "fragments"),
    [
        ("alexnett", ["alexnett", "did you mean 'alexnet'?", "resnet50", ".py:function"]),
        ("", ["no program", "alexnet"]),
        ("nothing/here.py:program", ["no file nothing/here.py"]),
        ("{tmp}/modle.py:program", ["no file", "did you mean 'model.py'?"]),
        ("{tmp}/notes.txt:program", ["not a Python file"]),
        ("{tmp}:program", ["is a directory"]),
        ("{tmp}/model.py", ["no function given", "model.py:function"]),
        ("{tmp}/model.py:", ["no function given"]),
        ("{tmp}/model.py:a b", ["'a b' is not a function name"]),
        ("{tmp}/model.py:progam", ["no function 'progam'", "did you mean 'program'?"]),
    ],
)
def test_a_wrong_place_is_named(tmp_path, spec, fragments):
    write(tmp_path, GOOD)
    write(tmp_path, "hello", "notes.txt")
    message = message_of(spec.format(tmp=tmp_path))
    assert [f for f in fragments if f not in message] == []


HEADER = "import jax, jax.numpy as jnp\nX = jax.ShapeDtypeStruct((8,), jnp.float32)\n"


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("def other(): pass\ndef needs(a): pass\n", ["no function 'program'", "there: other"]),
        ("", ["no function 'program'", "there: none"]),
        ("program = 3\n", ["is a int, not a function"]),
        ("import nonexistent_module_of_user\n", ["ModuleNotFoundError at line 3"]),
        ("x = (\n", ["cannot be imported: SyntaxError at line 3"]),
        ("\nraise ValueError('two\\nlines')\n", ["ValueError at line 4: two lines"]),
        ("raise SystemExit(3)\n", ["SystemExit at line 3"]),
        ("def program(a, b=1, *c): pass\n", ["needs arguments (a)"]),
        ("def program():\n    return 1 / 0\n", ["raised ZeroDivisionError at line 4"]),
        ("def program(): pass\n", ["returned a NoneType", "return (fn, args)"]),
        ("def program(): return jnp.sin, (X,), 1\n", ["returned a tuple of 3"]),
        ("def program(): return 'sin', (X,)\n", ["fn is a str, not callable"]),
        ("def program(): return jnp.sin, X\n", ["args is a ShapeDtypeStruct, not a tuple"]),
        (
            "def program(): return jnp.sin, (X, {'rate': 0.5})\n",
            ["args[1]['rate'] is a float without shape"],
        ),
    ],
)
def test_a_wrong_file_is_explained_in_one_line(tmp_path, text, fragments):
    path = write(tmp_path, HEADER + text)
    message = message_of(f"{path}:program")
    assert "model.py" in message
    assert [f for f in fragments if f not in message] == []
