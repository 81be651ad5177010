"""What SECURITY.md promises, looked for in the sources.

The linter looks for `eval` (S307), `exec` (S102) and `extractall` (S202).
"""

import ast
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "kerastl").rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}

# Names that must stand nowhere in the package, as a name, an attribute, an import or a keyword.
FORBIDDEN = {
    "enable_unsafe_deserialization": "S2: it lets a model file run code",
    "Lambda": "S3: a layer of marshalled code",
    "TFSMLayer": "S3: it runs a SavedModel inside a model",
    "marshal": "S3: it loads code",
    "pickle": "S4: it runs code when it loads",
    "cPickle": "S4: it runs code when it loads",
    "dill": "S4: it runs code when it loads",
    "cloudpickle": "S4: it runs code when it loads",
    "joblib": "S4: it pickles",
    "tf_keras": "S1: the old Keras, without the fixes",
    "get_file": "S6: it falls back to a shared folder without a word",
    "unpack_archive": "S7: kerastl unpacks no archive",
}
OTHERS = {("remote.py", "get_file")}  # fsspec's, which writes where it is told


def names(tree):
    """Every identifier of a module, with its line; those of strings are none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias):
            yield from ((part, node.lineno) for part in node.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            yield from ((part, node.lineno) for part in (node.module or "").split("."))
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.value.lineno


NAMES = {path: list(names(tree)) for path, tree in TREES.items()}


def keywords(tree, name):
    """The values of a keyword argument in every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == name:
            yield node.value


def test_there_are_sources_to_look_at():
    assert len(SOURCES) > 100


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_name_stands_nowhere(name):
    found = [
        f"{path}:{line}"
        for path, pairs in NAMES.items()
        for n, line in pairs
        if n == name and (path.name, n) not in OTHERS
    ]

    assert found == [], FORBIDDEN[name]


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from joblib import dump", "keras.layers.Lambda(f)", "x(pickle=1)",
     "keras.utils.get_file('a')", "import a.marshal.b", "from tf_keras import x"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source):
    assert {name for name, _ in names(ast.parse(source))} & set(FORBIDDEN)


@pytest.mark.parametrize(
    ("keyword", "value", "why"),
    [
        ("safe_mode", False, "S2: it lets a model file run code"),
        ("allow_pickle", True, "S4: an array file could run code"),
        ("shell", True, "a shell reads what a name of a file may hold"),
    ],
)
def test_a_keyword_never_has_the_value_that_harms(keyword, value, why):
    given = [node for tree in TREES.values() for node in keywords(tree, keyword)]
    harmful = [node for node in given if not isinstance(node, ast.Constant) or node.value == value]

    # 0 == False, so the type counts too; what is no constant cannot be judged, and is not allowed.
    assert [ast.dump(node) for node in harmful if _harms(node, value)] == [], why


def _harms(node, value):
    return not isinstance(node, ast.Constant) or type(node.value) is type(value)


def test_every_array_file_is_read_without_pickle():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                allowed = [k.value.value for k in node.keywords if k.arg == "allow_pickle"]
                assert allowed in ([], [False]), f"{path}:{node.lineno}"  # False is the default


def test_every_decoding_of_images_asks_for_channels():
    """S9: 0, their default, corrupts the heap on animated WebP."""
    calls = [
        node
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and re.fullmatch(r"tf\.(io|image)\.decode_(image|jpeg|png|bmp|gif)", ast.unparse(node.func))
    ]

    assert len(calls) >= 4
    for call in calls:
        (channels,) = (k.value.value for k in call.keywords if k.arg == "channels")
        assert channels in (3, 4)
    given = [node for tree in TREES.values() for node in keywords(tree, "channels")]
    assert not [node for node in given if isinstance(node, ast.Constant) and node.value == 0]


def test_archives_are_written_at_most():
    """Of models that Keras reads, the directory alone is looked at; a tar of images is streamed."""
    unpacks = {"tarfile", "extract", "extractall", "gzip", "bz2", "lzma"}
    for path, tree in TREES.items():
        found = {name for name, _ in NAMES[path]} & unpacks
        streams = path.name == "webdataset.py" and 'tarfile.open(path, "r|*")' in path.read_text()
        assert found == ({"tarfile"} if streams else set()), f"{path} uses {found}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ZipFile"):
                looks = path.name == "file_sizes.py" and "infolist" in path.read_text()
                assert ast.unparse(node.args[1]) == ("'r'" if looks else "'w'"), path


def imports(tree):
    """The packages that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def test_no_code_of_ours_opens_a_connection_to_another_machine():
    clients = {"urllib", "requests", "httpx", "httpx2", "aiohttp", "ftplib", "http"}
    found = [str(path) for path, tree in TREES.items() if set(imports(tree)) & clients]

    assert found == []


def test_the_least_keras_has_the_fixes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [line for line in project["dependencies"] if line.startswith("keras>=")]

    (version,) = (line.removeprefix("keras>=") for line in required)
    assert tuple(map(int, version.split("."))) >= (3, 15, 1)


def test_the_document_speaks_of_each_promise():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")

    for word in (
        "safe_mode",
        "pickle",
        "SHA-256",
        "SavedModel",
        "archive",
        "max_pixels",
        "skip list",
    ):
        assert word in text
