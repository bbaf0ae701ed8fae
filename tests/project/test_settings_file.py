"""`compose.toml`: what it may say, every problem with its place, and what it can't name."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cli import ROGUE, compose, samples
from support.rights import closed
from support.sizes import size
from support.state import made_state

from composer import ApplyOptions, InvalidInput, Project, Selection, TargetOptions, open_target
from composer.files.state import VARIABLE, remember_library
from composer.previews.cells import Look, PreviewSettings
from composer.project.settings import ReadSettings, Settings
from composer.project.settings_file import MAX_BYTES, is_right, read_settings, validator
from composer.recipes.problems import SETTINGS_CODES

FOLDER = Path(__file__).parent / "broken_settings"
FILES = sorted(FOLDER.glob("*.toml"))
TOML = "compose.toml"
MOST = MAX_BYTES - 10


def read(root: Path, text: str | bytes) -> ReadSettings:
    (root / TOML).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_settings(root)


def lines(read: ReadSettings) -> str:
    return "".join(
        f"{p.line}:{p.column} {p.code} {p.message}\n    {p.hint}\n" for p in read.problems
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_broken_file_gets_the_whole_report_beside_it(file: Path, tmp_path: Path) -> None:
    broken = read(tmp_path, file.read_bytes())
    assert lines(broken) == file.with_suffix(".txt").read_text("utf-8")
    assert file.stem in {problem.code for problem in broken.problems}
    assert {problem.file for problem in broken.problems} == {TOML}
    assert (broken.settings, broken.exists) == (Settings(), True)


def test_every_code_of_settings_has_a_case() -> None:
    assert set(SETTINGS_CODES) <= {file.stem for file in FILES}


def test_what_it_may_say(tmp_path: Path) -> None:
    text = (
        'target = "scenario"\nproject = "p-1_x"\nlibrary = "./models/loras"\n'
        'exclude = ["*.draft.yaml", "recipes/old/"]\nparallelism = 3\n'
    )
    said = read(tmp_path, text)
    exclude = ("*.draft.yaml", "recipes/old/")
    assert said.settings == Settings("scenario", "p-1_x", "./models/loras", exclude, 3)
    assert (said.problems, said.exists) == ((), True)
    assert read(tmp_path, "").settings == Settings()
    assert type(read(tmp_path, "parallelism = 8.0\n").settings.parallelism) is int
    (tmp_path / TOML).unlink()
    assert read_settings(tmp_path) == ReadSettings()


def test_what_it_may_say_of_previews(tmp_path: Path) -> None:
    text = (
        '[previews]\nprompts = ["a fox", """a  cat\n in the rain""", "a fox"]\n'
        "seeds = [7, 8.0, 7]\n"
        'width = 512\nheight = 768.0\nsteps = 4\nguidance = 0\nbaseModel = "owner/FLUX.1-dev"\n'
    )
    previews = read(tmp_path, text).settings.previews
    look = Look(512, 768, 4, 0.0)
    prompts = ("a fox", "a cat in the rain")
    assert previews == PreviewSettings(prompts, (7, 8), look, "owner/FLUX.1-dev")
    assert [type(seed) for seed in previews.seeds] == [int, int]
    assert (type(look.guidance), type(previews.look.height)) == (float, int)
    assert read(tmp_path, "previews.steps = 4\n").settings.previews.look == Look(steps=4)
    assert read(tmp_path, "[previews]\n").settings == Settings()


@pytest.mark.parametrize(
    ("line", "code", "column"),
    [
        ("prompts = [' \u200b']", "E106", 12),
        (f"prompts = ['{'x' * 2049}']", "E106", 12),
        ('prompts = ["a\\n\\u202eb"]', "E202", 12),
        ("guidance = nan", "E104", 12),
        ("guidance = inf", "E104", 12),
        ("steps = true", "E103", 9),
        ("width = nan", "E103", 9),
        (f"seeds = [{2**31}]", "E104", 10),
        ("baseModel = ''", "E106", 13),
        ("prompts.a = 1", "E103", 13),
        *(
            (f"baseModel = '{name}'", "E502", 13)
            for name in (
                *("/models/flux", "~/flux", "../flux", "a/../../b", "C:/flux", "a\\b", "//host/x"),
                *("https://user:secret@host/x", "git@host:x", "host:8000/x", "a?token=1", "a#b"),
            )
        ),
    ],
)
def test_what_it_may_not_say_of_previews(tmp_path: Path, line: str, code: str, column: int) -> None:
    problems = read(tmp_path, f"[previews]\n{line}\n").problems
    assert {(p.code, p.line, p.column) for p in problems} == {(code, 2, column)}
    assert all(p.message.startswith("previews.") and p.hint for p in problems)
    assert "secret" not in str(problems)


def test_no_link_leads_to_a_base_model_outside(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "flux").symlink_to(tmp_path)
    (problem,) = read(root, "[previews]\nbaseModel = 'flux'\n").problems
    assert (problem.code, "through a link" in problem.message) == ("E502", True)


@pytest.mark.parametrize(
    "library",
    [
        "/loras",
        "~/loras",
        "~",
        "../loras",
        "a/../../b",
        "a/..",
        "..",
        "C:loras",
        "C:/l",
        "a\\b",
        "\\\\host\\x",
        "//host/x",
        "a\x00b",
    ],
)
def test_a_library_outside_the_project_is_refused(tmp_path: Path, library: str) -> None:
    (problem,) = read(tmp_path, f"library = {json.dumps(library)}\n").problems[:1]
    assert (problem.code, problem.line, problem.column) in [("E502", 1, 11), ("E202", 1, 11)]


@pytest.mark.parametrize("library", [".", "loras", "a/b", "...", "a..b", ".loras", "a/~b", "ä ö"])
def test_a_library_inside_the_project_is_taken(tmp_path: Path, library: str) -> None:
    assert read(tmp_path, f"library = {json.dumps(library)}\n").settings.library == library


def test_no_link_leads_out(tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "loras").mkdir(parents=True)
    (root / "inside").symlink_to("loras")
    (root / "outside").symlink_to(tmp_path)
    assert read(root, 'library = "inside"\n').settings.library == "inside"
    for library in ("outside", "outside/x"):
        (problem,) = read(root, f'library = "{library}"\n').problems
        assert (problem.code, "through a link" in problem.message) == ("E502", True)
    (root / TOML).unlink()
    (tmp_path / "other.toml").write_text('target = "local"\n')
    (root / TOML).symlink_to(tmp_path / "other.toml")
    assert [p.code for p in read_settings(root).problems] == ["E303"]
    (root / TOML).unlink()
    (root / TOML).symlink_to("nowhere.toml")
    (problem,) = read_settings(root).problems
    assert (problem.code, "a link to a file that does not exist" in problem.message) == (
        "E301",
        True,
    )


@pytest.mark.parametrize("target", ["http://localhost:1/v1", "https://a.b", "user@host"])
def test_a_url_is_refused_and_not_repeated(tmp_path: Path, target: str) -> None:
    (problem,) = read(tmp_path, f'target = "{target}"\n').problems
    assert problem.code == "E502"
    assert "COMPOSE_TARGET" in problem.hint
    assert target not in problem.message + problem.hint


@pytest.mark.parametrize("library", ["s3://bucket/loras", "https://user:secret@host/x"])
def test_a_library_by_url_is_refused_and_not_repeated(tmp_path: Path, library: str) -> None:
    (problem,) = read(tmp_path, f'library = "{library}"\n').problems
    assert (problem.code, "a URL" in problem.message) == ("E502", True)
    assert "COMPOSE_LIBRARY" in problem.hint
    assert library not in problem.message + problem.hint


def test_a_number_of_too_many_digits_is_refused_in_words(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, f"parallelism = {'9' * 5000}\n").problems
    assert (problem.code, problem.message) == ("E501", "invalid TOML: a number has too many digits")


def test_what_is_no_text_file_is_a_problem_too(tmp_path: Path) -> None:
    (tmp_path / TOML).mkdir()
    assert [p.code for p in read_settings(tmp_path).problems] == ["E301"]
    (tmp_path / TOML).rmdir()
    os.mkfifo(tmp_path / TOML)
    assert [p.code for p in read_settings(tmp_path).problems] == ["E301"]
    (tmp_path / TOML).unlink()
    assert [p.code for p in read(tmp_path, b"target = '\xff'").problems] == ["E201"]
    assert [p.code for p in read(tmp_path, b"\xff\xfet\0").problems] == ["E201"]
    assert [p.code for p in read(tmp_path, "# '\u202e'").problems] == ["E203"]
    assert read(tmp_path, "#" * MAX_BYTES).problems == ()
    assert [p.code for p in read(tmp_path, "#" * (MAX_BYTES + 1)).problems] == ["E302"]
    with closed(tmp_path / TOML):
        (problem,) = read_settings(tmp_path).problems
        assert (problem.code, "Permission denied" in problem.message) == ("E301", True)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * MOST,
        "a=" + "9" * MOST,
        "a=[" + "1," * (MOST // 2) + "]",
        "\n".join(f"a{n}=1" for n in range(MOST // 8)),
        ".".join("a" * (MOST // 2)) + "=1",
        '"' * MOST,
        "a = " + "{a=" * (MOST // 3),
        "\n" * MOST,
        "a='''" + "'\n" * (MOST // 2),
    ],
    ids=["deep", "digits", "items", "keys", "dotted", "quotes", "tables", "lines", "text"],
)
def test_no_file_takes_long(tmp_path: Path, text: str) -> None:
    start = time.process_time()
    read(tmp_path, text)
    assert time.process_time() - start < 3


# --- the quick check and jsonschema --------------------------------------------------------

VALUES = st.one_of(
    st.booleans(),
    st.integers(-2, 70),
    st.floats(-2, 70),
    st.sampled_from(["", "local", "a/b", "../a", "a\n", "x" * 65, "/a", "~", "C:a", "a\\b"]),
    st.lists(st.sampled_from(["", "*.x", 3, "a\x07"]), max_size=2),
    st.just({}),
)
KEYS = ["target", "project", "library", "exclude", "parallelism", "previews", "zzz"]
TABLES = st.dictionaries(
    st.sampled_from(["prompts", "seeds", "width", "steps", "guidance", "baseModel", "zzz"]),
    VALUES | st.sampled_from([128, 1000, 2048, 2049, ["a fox"], [7, 2**31], "a:b", "x\x07"]),
)
DOCUMENTS = st.dictionaries(st.sampled_from(KEYS), VALUES | TABLES)


@given(DOCUMENTS)
@settings(max_examples=size(25, 1_000), deadline=None)
def test_the_quick_check_finds_something_wrong_where_jsonschema_does(raw: object) -> None:
    assert is_right(raw) == validator().is_valid(raw)


# --- a project goes by them ----------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The sample project, with its LoRAs where only a setting finds them."""
    root = samples(tmp_path / "project")
    (root / "recipes/loras").rename(root / "models")
    return root


def write(root: Path, text: str) -> None:
    (root / TOML).write_text(text, "utf-8")


def opened(root: Path) -> Project:
    """As the command line opens it."""
    return Project(root, state_dir=os.environ[VARIABLE])


def loras(root: Path, options: TargetOptions | str = "local", **env: str) -> int:
    with open_target(options, opened(root), env=env, run_jobs=False) as target:
        return len(target.list_models("flux.1-lora"))


def test_the_library_by_flag_environment_machine_and_file(project: Path, tmp_path: Path) -> None:
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir()
    other.mkdir()
    assert loras(project) == 0
    write(project, 'library = "models"\n')
    assert loras(project) == 4
    assert loras(project, TargetOptions("local", library=empty)) == 0
    assert loras(project, COMPOSE_LIBRARY=str(empty)) == 0
    remember_library(made_state(project), other)
    assert loras(project) == 0
    assert loras(project, COMPOSE_LIBRARY=str(project / "models")) == 4
    chosen: list[str] = []
    open_target(
        "local", opened(project), env={}, on_choice=lambda c: chosen.append(c.reason)
    ).close()
    assert chosen == ["--target; library: remembered by compose init"]
    other.rmdir()
    ran = compose("models", at=project)
    assert (ran.status, "remembers it: compose init --library DIR" in ran.err) == (64, True)
    remember_library(made_state(project), None)
    (project / "models").rename(project / "elsewhere")
    ran = compose("models", at=project)
    assert (ran.status, "compose.toml names it" in ran.err) == (64, True)


def test_the_api_reads_no_environment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSE_LIBRARY", "/nowhere")
    monkeypatch.setenv("SCENARIO_PROJECT_ID", "p9")
    write(project, 'library = "models"\nproject = "p1"\nparallelism = 3\n')
    assert Project(project).settings.project == "p1"
    assert loras(project) == 4
    options = Project(project).options(ApplyOptions())
    assert options.parallelism == 3
    assert Project(project).options(ApplyOptions(parallelism=5)).parallelism == 5


def test_the_target_line_and_doctor_say_where_a_value_came_from(project: Path) -> None:
    write(project, 'target = "local"\nlibrary = "models"\n')
    ran = compose("plan", at=project)
    assert ran.status == 0
    assert ran.err.startswith("Target: local (compose.toml)\n")
    write(project, 'library = "models"\n')
    ran = compose("plan", at=project)
    assert ran.err.startswith("Target: local (no credentials are set; library: compose.toml)\n")
    shown = compose("doctor", "--offline", at=project).out
    assert '= compose.toml: library = "models"\n' in shown
    write(project, 'library = "models"\n[previews]\nprompts = ["a fox"]\n')
    shown = compose("doctor", "--offline", at=project).out
    assert '= compose.toml: library = "models", [previews] with 1 prompt\n' in shown
    assert "= usable LoRAs: 4\n" in shown
    remember_library(made_state(project), project / "models")
    assert f"library: {project}/models, remembered by compose init" in (
        compose("doctor", "--offline", at=project).out
    )


def test_serve_pull_and_inspect_go_by_the_library(project: Path) -> None:
    write(project, 'library = "models"\n')
    ran = compose("inspect", ROGUE, at=project)
    assert (ran.status, "Pixel Dust" in ran.out) == (0, True)
    assert compose("apply", at=project).status == 0
    assert compose("pull", "-o", "out/", at=project).status == 0


def test_excluded_files_are_no_recipes(project: Path) -> None:
    write(project, 'library = "models"\nexclude = ["*.draft.yaml"]\n')
    draft = project / "recipes/castle.draft.yaml"
    draft.write_text("services: {}\n")
    assert compose("validate", at=project).out == "4 recipes, no problems.\n"
    assert compose("validate", "recipes/castle.draft.yaml", at=project).status == 0
    assert compose("validate", TOML, at=project).status == 0
    plan = json.loads(compose("plan", "-o", "json", at=project).out)
    assert (plan["leftOut"], plan["hasChanges"]) == (0, True)
    assert compose("apply", at=project).status == 0
    assert Project(project, Selection(exclude=("pixel*",))).selected is not None


def test_an_excluded_recipe_that_the_lock_names_is_left_out_and_not_gone(project: Path) -> None:
    write(project, 'library = "models"\n')
    assert compose("apply", at=project).status == 0
    write(project, 'library = "models"\nexclude = ["pixel-*"]\n')
    ran = compose("apply", "--prune", at=project)
    assert ran.status == 0
    assert "1 of 4 recipes is left out (excluded by compose.toml)" in ran.err + ran.out
    write(project, 'library = "models"\n')
    assert "No changes" in compose("apply", at=project).out


def test_a_broken_file_stops_every_command_and_is_told_in_every_format(project: Path) -> None:
    write(project, 'libary = "models"\n')
    where = f"{TOML}:1:1 E101"
    for command in ("plan", "apply", "status", "models", "output", "lock", "validate", "serve"):
        ran = compose(command, at=project)
        assert (ran.status, where in ran.err + ran.out) == (65, True), ran
        assert "1 problem in 1 file. Nothing was sent." in ran.err + ran.out
    listed = json.loads(compose("validate", "-o", "json", at=project).out)["problems"]
    assert [(p["file"], p["line"], p["column"], p["code"]) for p in listed] == [
        (TOML, 1, 1, "E101")
    ]
    assert f"::error file={TOML},line=1,col=1" in compose("plan", "-o", "github", at=project).out
    sarif = json.loads(compose("validate", "-o", "sarif", at=project).out)
    assert sarif["runs"][0]["results"][0]["ruleId"] == "E101"
    ran = compose("doctor", "--offline", at=project)
    assert (ran.status, where in ran.out) == (1, True)
    with pytest.raises(InvalidInput) as caught:
        open_target("local", Project(project))
    assert [problem.code for problem in caught.value.problems] == ["E101"]


def test_names_in_it_are_made_visible(project: Path) -> None:
    write(project, '"a\\u001b[31mb\\u202e" = 1\ntarget = "x\\u202ey"\n')
    ran = compose("validate", at=project)
    assert ran.status == 65
    assert not re.search("[\x1b\u202e]", ran.out + ran.err)


def test_no_copy_is_written_over_it(project: Path) -> None:
    write(project, 'library = "models"\n')
    for command in (["plan", "--json-into", TOML], ["merge", "models/ink-lines.safetensors"]):
        if command[0] == "merge":
            command += ["-o", "x.safetensors", "--json-into", TOML]
        assert compose(*command, at=project).status == 64
    assert (project / TOML).read_text() == 'library = "models"\n'
