"""`partition schedule`: every form, every conversion, the check, the search, and hostile arguments; no traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from partition.cli import main
from partition.schedule import GENERATORS

FOUR = ["--ranks", "4", "--microbatches", "8"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Exit code, output and errors of a command; argparse's own refusals are exit codes too."""

    def command(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return command


def test_csv_is_the_text_form(run: Any) -> None:
    code, out, err = run("schedule", "1f1b", "--ranks", "2", "--microbatches", "2", "--format", "csv")
    assert (code, out, err) == (0, "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n", "")


def test_lowered_adds_messages(run: Any) -> None:
    _, out, _ = run("schedule", "1f1b", "--ranks", "2", "--microbatches", "1", "--format", "csv", "--lowered")
    assert out == "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n"


def test_the_grid_is_the_default_and_has_its_figures(run: Any) -> None:
    _, out, _ = run("schedule", "1f1b", "--ranks", "2", "--microbatches", "2")
    assert out.startswith("rank 0  F0 F1 .. .. B0 -- .. B1 --\nrank 1  .. F0 B0 -- F1 B1 -- .. ..\n\n1f1b: 2 ranks")
    assert "step 9.00 s, idle 33.3% of it" in out


def test_stages_and_placement_are_taken(run: Any) -> None:
    _, out, _ = run("schedule", "gpipe", "--ranks", "2", "--stages", "4", "--microbatches", "1", "--format", "csv")
    assert out.startswith("0F0,2F0,2B0,0B0\n")
    _, out, _ = run("schedule", "1f1b", "--ranks", "2", "--microbatches", "1", "--placement", "0,1,1,0",
                    "--format", "csv")  # fmt: skip
    assert out == "0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n"


def test_recomputation_is_written_checked_and_drawn(run: Any, tmp_path: Path) -> None:
    arguments = ("schedule", "1f1b", "--ranks", "2", "--microbatches", "2", "--recompute")
    code, out, _ = run(*arguments, "--out-file", "again.csv")
    assert (code, (tmp_path / "again.csv").read_text()) == (0, "0F0,0F1,0R0,0B0,0R1,0B1\n1F0,1R0,1B0,1F1,1R1,1B1\n")
    assert run("schedule", "--file", "again.csv", "--check")[0] == 0
    _, out, _ = run("schedule", "--file", "again.csv", "--kept-bytes", "10 MiB")
    assert out.startswith("rank 0  F0 F1 R0 .. .. B0 -- R1 .. B1 --\nrank 1  .. F0 R0 B0 -- F1 R1 B1 -- .. ..\n")
    assert run(*arguments, "--out-file", "again.svg")[0] == 0
    assert "R recomputation" in (tmp_path / "again.svg").read_text()
    (tmp_path / "late.csv").write_text("0F0,0F1,0R0,0B0,0B1,0R1\n1F0,1R0,1B0,1F1,1R1,1B1\n")
    code, _, err = run("schedule", "--file", "late.csv", "--check")
    assert (code, "rank 0, position 5, 0R1: it comes after 0B1, which needs what it makes" in err) == (2, True)
    assert run("schedule", "--file", "again.csv", "--recompute")[0] == 2
    assert run("schedule", "auto", "--ranks", "2", "--microbatches", "2", "--recompute")[0] == 2


@pytest.mark.parametrize("name", GENERATORS)
def test_forms_convert_into_each_other(name: str, run: Any, tmp_path: Path) -> None:
    read = ["--forward-only"] if name == "forward_only" else []
    assert run("schedule", name, *FOUR, "--out-file", "a.csv")[0] == 0
    assert run("schedule", "--file", "a.csv", *read, "--out-file", "b.json")[0] == 0
    assert run("schedule", "--file", "b.json", "--out-file", "c.csv", "--lowered")[0] == 0
    assert run("schedule", "--file", "c.csv", *read, "--out-file", "d.csv")[0] == 0
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "d.csv").read_text()
    for file in ("a.csv", "b.json", "c.csv"):
        code, out, _ = run("schedule", "--file", file, *([] if file == "b.json" else read), "--check")
        assert (code, out.startswith(f"{file}: complete, in order and free of deadlock: 4 ranks")) == (0, True)


def test_json_is_one_document(run: Any) -> None:
    for arguments in (["--json"], ["--format", "json"]):
        code, out, err = run("schedule", "zb_h1", *FOUR, "--send-s", "0.5", *arguments)
        document = json.loads(out)
        assert (code, err, document["schema_version"], document["search"]) == (0, "", 1, None)
        assert document["schedule"]["rows"][3][:3] == ["3F0", "3I0", "3F1"]
        assert document["figures"]["num_transfers"] == 48
        assert len(document["figures"]["ranks"]) == 4


def test_json_says_what_the_file_holds(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("schedule", "1f1b", *FOUR, "--out-file", "a.csv", "--json")
    assert (code, json.loads(out)["schedule"]["name"]) == (0, "1f1b")
    assert (tmp_path / "a.csv").read_text().startswith("0F0,0F1,0F2,0F3,0B0")


@pytest.mark.parametrize(("form", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("trace", b'{"displayTimeUnit"')])
def test_pictures_and_traces_are_written(form: str, start: bytes, run: Any, tmp_path: Path) -> None:
    code, out, _ = run("schedule", "zbv", "--ranks", "2", "--microbatches", "3", "--format", form, "--out-file", "o")
    assert (code, out) == (0, "Written to o\n")
    assert (tmp_path / "o").read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_costs_are_those_of_the_options(run: Any) -> None:
    arguments = ["schedule", "1f1b", "--ranks", "2", "--microbatches", "1", "--json"]
    _, out, _ = run(*arguments, "--forward-s", "1,2 s", "--input-grad-s", "500 ms", "--weight-grad-s", "0.25",
                    "--send-s", "0.125", "--kept-bytes", "3 KiB,1 KiB")  # fmt: skip
    found = json.loads(out)["figures"]
    assert found["step_s"] == 1 + 0.125 + 2 + 0.75 + 0.125 + 0.75
    assert [rank["peak_bytes"] for rank in found["ranks"]] == [3072, 1024]
    assert found["memory_unit"] == "bytes"


def test_a_barrier_before_the_step_is_in_the_bubble(run: Any) -> None:
    bubbles = [
        json.loads(run("schedule", "zb_h2", *FOUR, "--json", *barrier)[1])["figures"]["ranks"][0]["bubble_s"]
        for barrier in ([], ["--step-barrier"])
    ]
    assert bubbles == [0.0, 3.0]


# The search


def test_auto_is_no_worse_than_a_generator_that_fits_and_says_how_good_it_is(run: Any) -> None:
    limit = ["--memory-limit", "5"]
    document = json.loads(run("schedule", "auto", *FOUR, *limit, "--forward-s", "1,2,1,1", "--json")[1])
    search, found = document["search"], document["figures"]
    best = json.loads(run("schedule", "1f1b", *FOUR, *limit, "--forward-s", "1,2,1,1", "--json")[1])["figures"]
    assert found["step_s"] == search["makespan_s"] <= best["step_s"]
    assert search["lower_bound_s"] <= search["makespan_s"]
    assert all(rank["peak_bytes"] <= rank["limit_bytes"] == 5 for rank in found["ranks"])
    assert "schedules replayed; the step is" in run("schedule", "auto", *FOUR, *limit)[1]


def test_auto_tries_a_v_where_there_are_two_stages_a_rank(run: Any) -> None:
    arguments = ["--ranks", "2", "--stages", "4", "--microbatches", "4", "--send-s", "0.5", "--json"]
    free = json.loads(run("schedule", "auto", *arguments)[1])["search"]["makespan_s"]
    fixed = [
        json.loads(run("schedule", "auto", *arguments, "--placement", placement)[1])["search"]["makespan_s"]
        for placement in ("0,1,0,1", "0,1,1,0")
    ]
    assert free == min(fixed)


def test_what_fits_nowhere_is_exit_code_3(run: Any) -> None:
    code, _, err = run("schedule", "auto", *FOUR, "--memory-limit", "0")
    assert (code, "the smallest needs room for 4 more" in err) == (3, True)
    code, _, err = run("schedule", "auto", *FOUR, "--kept-bytes", "1 KiB", "--memory-limit", "512 B")
    assert (code, "bytes a rank: the smallest found needs" in err) == (3, True)
    code, out, err = run("schedule", "zb_h1", *FOUR, "--memory-limit", "7")
    assert (code, "rank 3 needs 8 kept, it may hold 7 kept" in err, "zb_h1: 4 ranks" in out) == (3, True, True)


# The check


def check(run: Any, text: str, *options: str) -> tuple[int, str, str]:
    Path("mine.csv").write_text(text, encoding="utf-8")
    found: tuple[int, str, str] = run("schedule", "--file", "mine.csv", "--check", *options)
    return found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0F0,0F1,0B0\n1F0,1B0,1F1,1B1\n", "rank 0, position 3, end of row: 0B1 is missing"),
        ("0F0,0B0\n1F0,1F0,1B0\n", "rank 1, position 1, 1F0: it stands at position 0 already"),
        ("0F0,0B0\n1F0,2BW0\n", "rank 1, cell 2: '2BW0' is the older dialect"),
        ("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n", "ranks wait for one another"),
        ("0F0,0SEND_F0,0B0\n1F0,1B0\n", "0SEND_F0: 1RECV_F0 is missing on rank 1"),
        ("0F0,0B0\n2F0,2B0\n", "no row runs stage 1"),
        ("", "holds no action"),
    ],
)
def test_what_is_wrong_is_exit_code_2_with_rank_and_action(text: str, message: str, run: Any) -> None:
    code, out, err = check(run, text)
    assert (code, out) == (2, "")
    assert message in err
    code, out, _ = check(run, text, "--json")
    assert (code, message in json.loads(out)["problem"]["message"]) == (2, True)


def test_the_place_is_in_the_record(run: Any) -> None:
    problem = json.loads(check(run, "0F0,0F1,0B0\n1F0,1B0,1F1,1B1\n", "--json")[1])["problem"]
    assert (problem["rank"], problem["position"], problem["action"]) == (0, 3, "end of row")
    document = json.loads(check(run, "0F0,0B0\n1F0,1B0\n", "--json")[1])
    assert (document["problem"], document["num_ranks"], document["placement"]) == (None, 2, [0, 1])


def test_gradients_in_another_order_run_but_not_to_the_same_bits(run: Any) -> None:
    text = "0F0,0F1,0B1,0B0\n"
    code, out, _ = check(run, text)
    assert (code, "not bit-identical" in out) == (0, True)
    assert json.loads(check(run, text, "--json")[1])["bit_identical"] is False
    assert "not bit-identical" in run("schedule", "--file", "mine.csv")[1]


def test_prediction_must_be_said(run: Any) -> None:
    code, _, err = check(run, "0F0\n1F0\n")
    assert (code, "add --forward-only" in err) == (2, True)
    assert check(run, "0F0\n1F0\n", "--forward-only")[0] == 0


def test_sizes_beside_a_file_must_be_its_own(run: Any) -> None:
    assert check(run, "0F0,0B0\n1F0,1B0\n", "--ranks", "2", "--stages", "2", "--microbatches", "1")[0] == 0
    code, _, err = check(run, "0F0,0B0\n1F0,1B0\n", "--ranks", "3")
    assert (code, "holds 2 ranks, --ranks says 3" in err) == (2, True)


# Hostile arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --file F or the name of a schedule"),
        (["1f1b"], "schedule 1f1b needs --ranks"),
        (["1f1b", "--ranks", "2"], "schedule 1f1b needs --microbatches"),
        (["nope", *FOUR], "'nope' is not known; take one of"),
        (["1f1b", *FOUR, "--file", "a.csv"], "give either --file F or the name"),
        (["--file", "a.csv"], "there is no such file"),
        (["1f1b", *FOUR, "--stages", "8"], "take 4 stages"),
        (["1f1b", "--ranks", "0", "--microbatches", "1"], "0 ranks, at least 1 is needed"),
        (["zbv", "--ranks", "2", "--microbatches", "-3"], "-3 microbatches, at least 1 is needed"),
        (["auto", "--ranks", "-1", "--microbatches", "1"], "at least 1 each"),
        (["1f1b", "--ranks", "9" * 30, "--microbatches", "9" * 30], "at most 333333 are checked or replayed"),
        (["1f1b", "--ranks", "9000", "--microbatches", "9000", "--format", "csv"], "at most 10000000 are written"),
        (["zbv", "--ranks", "9000", "--microbatches", "1", "--format", "csv"], "at most 10000000 are written"),
        (["auto", "--ranks", "1000", "--microbatches", "1"], "too many to search"),
        (["auto", "--ranks", "3", "--stages", "4", "--microbatches", "1"], "4 stages for 3 ranks; take a multiple"),
        (["auto", *FOUR, "--placement", "0,1"], "every rank a stage"),
        (["1f1b", *FOUR, "--placement", "0,1"], "must give each of 2 stages one of the ranks 0 to 3"),
        (["1f1b", *FOUR, "--placement", "0,\u0661"], "--placement '0,\u0661': give the rank of each stage"),
        (["1f1b", *FOUR, "--forward-s", "1,2"], "2 values for 4 stages"),
        (["1f1b", *FOUR, "--forward-s", "nan"], "--forward-s: 'nan' is not a duration"),
        (["1f1b", *FOUR, "--kept-bytes", "1e20"], "more than 64 TiB"),
        (["1f1b", *FOUR, "--memory-limit", "x"], "--memory-limit: 'x' is not a size"),
        (["1f1b", *FOUR, "--format", "png"], "say where with --out-file F.png"),
        (["1f1b", *FOUR, "--out-file", "a.gif"], "--out-file 'a.gif': what to write is not known"),
        (["1f1b", *FOUR, "--out-file", "no/such/a.csv"], "cannot be written (No such file or directory)"),
        (["1f1b", *FOUR, "--out-file", "a\0.csv"], "cannot be written"),
        (["1f1b", *FOUR, "--lowered"], "--lowered adds messages to csv and json, not to grid"),
        (["1f1b", *FOUR, "--format", "csv", "--send-s", "1"], "--send-s changes nothing in the text"),
        (["1f1b", *FOUR, "--check", "--format", "csv"], "--check writes nothing; leave --format out"),
        (["1f1b", *FOUR, "--forward-only"], "take the schedule forward_only instead"),
        (["1f1b", *FOUR, "key=value"], "unexpected 'key=value'"),
        (["1f1b", "--ranks", "x", "--microbatches", "1"], "invalid int value"),
        (["1f1b", "--ranks", "9" * 5000, "--microbatches", "1"], "invalid int value"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(arguments: list[str], message: str, run: Any) -> None:
    code, out, err = run("schedule", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_nothing_is_left_where_a_picture_fails(run: Any, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    code, _, err = run("schedule", "1f1b", *FOUR, "--out-file", "folder.png")
    assert (code, "cannot be written" in err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_a_link_is_written_through(run: Any, tmp_path: Path) -> None:
    """Renaming onto /dev/stdout replaced the link of the whole machine by a file."""
    (tmp_path / "real.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to("real.csv")
    assert run("schedule", "1f1b", "--ranks", "1", "--microbatches", "1", "--out-file", "link.csv")[0] == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "0F0,0B0\n"
