"""The checker: every finding on a tree made to have it, and the real corpora."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emopeft.downstream.corpora import scan_store
from emopeft.downstream.corpora.__main__ import main
from emopeft.downstream.corpora.audio import examine
from emopeft.downstream.corpora.base import CORPORA, Corpus, Utterance, read_names
from emopeft.downstream.corpora.check import check
from emopeft.downstream.corpora.report import Report
from emopeft.downstream.corpora.scan import scan
from emopeft.errors import UserError
from tests.corpora.trees import write_all, write_wav
from tests.shared import SHARED, needs_shared


def utterance(path: Path, emotion: str = "sad", speaker: str = "s") -> Utterance:
    return Utterance(id=path.stem, path=path, speaker=speaker, emotion=emotion)


def toy(**changes: object) -> Corpus:
    """Names such as ann_sad_1: speaker, emotion, number."""

    def parse(path: Path) -> Utterance:
        speaker, emotion, _ = path.stem.split("_")
        return utterance(path, emotion, speaker)

    fields: dict[str, object] = {
        "name": "toy",
        "title": "Toy",
        "licence": "",
        "citation": "",
        "read": lambda root: read_names(root, parse),
        "emotions": ("sad", "happy"),
        "protocol": "",
        "folder": "",
        "language": "",
        "expected": {"sad": 2, "happy": 2},
        "speakers": 2,
    }
    return Corpus(**{**fields, **changes})  # type: ignore[arg-type]


COMPLETE = ["ann_sad_1.wav", "ann_happy_1.wav", "ben_sad_1.wav", "ben_happy_1.wav"]


def found(report: Report, check_name: str) -> tuple[str, list[str]]:
    """Level and cases of one check."""
    (finding,) = [f for f in report.findings if f.check == check_name]
    return finding.level, list(finding.items)


def test_a_complete_tree_has_nothing_but_information(tmp_path: Path) -> None:
    report = check(toy(), write_all(tmp_path, COMPLETE))
    assert report.ok and {f.level for f in report.findings} == {"information"}
    assert report.utterances == 4 and report.speakers == 2
    assert report.hours == pytest.approx(4 * 0.2 / 3600)
    assert "sample rates: 16000 Hz (4)" in found(report, "format")[1]


def test_counts_speakers_and_ids(tmp_path: Path) -> None:
    write_all(tmp_path, ["ann_sad_1.wav", "ann_sad_2.wav", "ann_sad_3.wav", "ann_happy_1.wav"])
    report = check(toy(), tmp_path)
    assert found(report, "incomplete") == ("error", ["happy: 1 of 2", "speakers: 1 of 2"])
    assert found(report, "surplus") == ("warning", ["sad: 3 of 2"])
    names = [Path(n).stem for n in COMPLETE]
    report = check(toy(expected={}, speakers=None, ids=lambda: names), tmp_path)
    assert found(report, "incomplete") == ("error", ["ben_happy_1", "ben_sad_1"])


def test_unknown_labels_and_strangers(tmp_path: Path) -> None:
    write_all(tmp_path, [*COMPLETE, "ben_odd_1.wav"])
    report = check(toy(), tmp_path)
    assert found(report, "unknown label") == ("error", ["ben_odd_1: 'odd'"])
    given = CORPORA["emodb"]
    write_all(tmp_path / "e", ["03a01Wa.wav", "test.wav"])
    assert found(check(given, tmp_path / "e"), "not of the corpus") == ("information", ["test.wav"])


def test_every_kind_of_broken_or_odd_audio(tmp_path: Path) -> None:
    write_all(tmp_path, COMPLETE)
    (tmp_path / "a_sad_empty.wav").touch()
    (tmp_path / "a_sad_text.wav").write_text("not audio at all")
    write_wav(tmp_path / "a_sad_tiny.wav", 0.01)
    write_wav(tmp_path / "a_sad_short.wav", 0.05)
    write_wav(tmp_path / "a_sad_rate.wav", rate=8000)
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, 16000).astype(np.float32)
    noise[7] = np.nan
    soundfile.write(tmp_path / "a_sad_nan.wav", noise, 16000, subtype="FLOAT")
    noise[7] = 0
    noise[:16] = 1.0  # 0.1 %: not yet
    soundfile.write(tmp_path / "a_sad_full.wav", noise, 16000)
    noise[16] = -1.0  # one more
    soundfile.write(tmp_path / "a_sad_clip.wav", noise, 16000)
    soundfile.write(tmp_path / "a_sad_zero.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "a_sad_void.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "a_sad_hush.wav", np.full(16000, 2, dtype=np.int16), 16000)
    soundfile.write(tmp_path / "a_sad_low.wav", np.full(16000, 4, dtype=np.int16), 16000)
    cut = write_wav(tmp_path / "a_sad_cut.wav", 1)
    cut.write_bytes(cut.read_bytes()[:-6])

    report = check(toy(), tmp_path)

    def names(check_name: str, level: str) -> list[str]:
        actual, items = found(report, check_name)
        assert actual == level
        return [i.split("a_sad_")[1].split(".")[0].split(":")[0].split()[0] for i in items]

    assert names("empty", "error") == ["empty"]
    assert names("unreadable", "error") == ["text"]
    assert names("too short", "error") == ["tiny"]
    assert names("not finite", "error") == ["nan"]
    assert names("short", "warning") == ["short"]
    assert names("silent", "warning") == ["hush", "void", "zero"]  # 2/32768 < 1e-4 < 4/32768
    assert names("clipped", "warning") == ["clip"]
    assert names("cut", "warning") == ["cut"]
    formats = " ".join(found(report, "format")[1])
    assert "8000 Hz (1), 16000 Hz" in formats and "mixed" in formats
    assert not [f for f in report.findings if f.check == "duplicate"]


def test_duplicates_across_formats_with_conflicts_marked(tmp_path: Path) -> None:
    write_all(tmp_path, COMPLETE)
    samples, rate = soundfile.read(tmp_path / "ann_sad_1.wav", dtype="int16")
    soundfile.write(tmp_path / "ann_sad_2.flac", samples, rate)
    soundfile.write(tmp_path / "ben_happy_3.flac", samples, rate)
    level, items = found(check(toy(), tmp_path), "duplicate")
    assert level == "warning"
    (item,) = items
    assert item.startswith("ann_sad_1 = ann_sad_2 = ben_happy_3 (labels conflict: sad, sad, happy)")
    assert "speakers differ" in item
    (tmp_path / "ben_happy_3.flac").unlink()
    assert found(check(toy(), tmp_path), "duplicate")[1] == ["ann_sad_1 = ann_sad_2"]


def test_what_the_reader_refuses_is_a_finding(tmp_path: Path) -> None:
    write_all(tmp_path, ["03a01Wa.wav", "03a01Xa.wav", "sub/03a01Na.wav", "03a01Na.wav"])
    level, items = found(check(CORPORA["emodb"], tmp_path), "tree")
    assert level == "error" and items == [
        "03a01Xa.wav: unknown emotion letter X (one of W L E A F T N)"
    ]
    (tmp_path / "03a01Xa.wav").unlink()
    report = check(CORPORA["emodb"], tmp_path)
    assert "'03a01Na' stands twice" in found(report, "tree")[1][0]
    assert report.utterances == 2


def test_scan(tmp_path: Path) -> None:
    paths = [write_wav(tmp_path / f"{i}.wav", 0.1 * (i + 1)) for i in range(5)]
    paths[3].write_bytes(b"RIFF")
    utterances = [*map(utterance, paths), utterance(tmp_path / "gone.wav")]
    result = scan(utterances)
    assert result.seconds == pytest.approx({"0": 0.1, "1": 0.2, "2": 0.3, "4": 0.5})
    assert result.digests["0"] == hashlib.sha256(paths[0].read_bytes()).hexdigest()
    assert "gone" not in result.digests
    assert [p.split()[0] for p in result.problems] == [str(paths[3]), str(tmp_path / "gone.wav")]
    with pytest.raises(UserError, match="2 audio files cannot be used") as caught:
        result.raise_if_broken()
    assert str(paths[3]) in str(caught.value) and "gone.wav does not exist" in str(caught.value)
    good = scan(utterances[:3])
    good.raise_if_broken()
    assert len(scan(utterances[:3], minimum_seconds=0.15).problems) == 1


def test_at_most_twenty_problems_are_written_out(tmp_path: Path) -> None:
    result = scan([utterance(tmp_path / f"{i:02d}.wav") for i in range(25)])
    with pytest.raises(UserError) as caught:
        result.raise_if_broken()
    lines = str(caught.value).splitlines()
    assert len(lines) == 22 and "19.wav" in lines[20] and lines[21].strip() == "... and 5 more"


# ---- the command ------------------------------------------------------------------------------


def test_command_misuse_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_all(tmp_path, ["03a01Wa.wav"])
    place = str(tmp_path)
    for arguments, message in [
        (["check", "emobd", place], "unknown corpus 'emobd': did you mean emodb"),
        (["check", "emodb", place + "/nowhere"], "does not exist"),
        (["check", "emodb", place, "--hashes"], "no hashes were published for emodb"),
        (["check", "cremad", place, "--hashes"], "no hash table"),
        (["check", "cremad", place, "--hashes", place + "/x.tsv"], "does not exist"),
        (["check", "emodb", place, "-o", "language=all"], "takes no options"),
        (["check", "esd", place, "-o", "language"], "expected KEY=VALUE"),
        (["check", "esd", place, "-o", "language=german"], "unknown language of ESD 'german'"),
        (["check", "manifest", place, "-o", "scale={x: [1]}"], "the scale of 'x' must be two"),
    ]:
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error, (arguments, error)
    for arguments in ([], ["check"], ["chek", "emodb", place]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_command_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("cremad", "emodb", "esd", "iemocap", "manifest", "ravdess", "savee", "tess"):
        assert f"\n{name} " in text
    assert "10,039" in text and "CC BY-NC-SA 4.0" in text


def test_command_json_and_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_all(tmp_path, ["a.wav", "b.wav"]) / "m.csv"
    table.write_text("id,path,speaker,label\na,a.wav,s,x\nb,b.wav,s,y\n")
    file = tmp_path / "report.json"
    assert main(["check", "manifest", str(table), "--json", str(file)]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    assert json.loads(file.read_text())["found"] == {"x": 1, "y": 1}
    table.write_text("id,path,speaker,label\na,a.wav,s,x\nb,c.wav,s,y\n")
    assert main(["check", "manifest", str(table), "--json", str(file)]) == 1
    (finding,) = [f for f in json.loads(file.read_text())["findings"] if f["level"] == "error"]
    assert finding["check"] == "missing" and "c.wav does not exist" in finding["items"][0]
    table.write_text("id,path,speaker,label\na,a.wav,s\n")
    assert main(["check", "manifest", str(table)]) == 1
    assert "line 2: 3 values" in capsys.readouterr().out


def test_command_cremad_hashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"1001_DFA_{e}_XX.wav" for e in ("ANG", "DIS", "FEA")]
    write_all(tmp_path / "AudioWAV", names)
    lines = []
    for name in names:
        data = (tmp_path / "AudioWAV" / name).read_bytes()
        lines.append(f"{hashlib.sha256(data).hexdigest()}\t{len(data)}\t{name}\n")
    table = tmp_path / "table.tsv"
    file = tmp_path / "report.json"

    def hash_findings(text: str, *flags: str) -> list[str]:
        table.write_text(text)
        # The tree is far from complete, so the status is 1 in any case.
        assert main(["check", "cremad", str(tmp_path), *flags, "--json", str(file)]) == 1
        findings = json.loads(file.read_text())["findings"]
        return [
            i for f in findings if (f["check"], f["level"]) == ("hash", "error") for i in f["items"]
        ]

    assert hash_findings("".join(lines), "--hashes", str(table)) == []
    changed = "".join(["0" * 64 + lines[0][64:], lines[1], lines[2].replace("FEA", "SAD")])
    problems = hash_findings(changed, "--hashes", str(table))
    assert [p.split(":")[0] for p in problems] == [names[0], names[2], "1001_DFA_SAD_XX.wav"]
    assert "SHA-256 differs" in problems[0] and "not among the published" in problems[1]
    assert "not in the tree" in problems[2]
    assert hash_findings(changed) == []  # not asked for
    (tmp_path / "AudioWAV_sha256_size.tsv").write_text(changed)
    assert hash_findings(changed, "--hashes") == problems
    samples, rate = soundfile.read(tmp_path / "AudioWAV" / names[1])
    (tmp_path / "AudioWAV" / names[1]).unlink()
    soundfile.write((tmp_path / "AudioWAV" / names[1]).with_suffix(".flac"), samples, rate)
    assert "cannot be compared" in " ".join(hash_findings("".join(lines), "--hashes", str(table)))
    table.write_text("abc\n")
    capsys.readouterr()
    assert main(["check", "cremad", str(tmp_path), "--hashes", str(table)]) == 2
    assert "table.tsv, line 1" in capsys.readouterr().err


@needs_shared
def test_command_on_real_ravdess(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert SHARED is not None
    file = tmp_path / "report.json"
    place = str(SHARED / "data" / "ravdess")
    assert main(["check", "ravdess", place, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    warnings = [f for f in report["findings"] if f["level"] == "warning"]
    # The one pair that PROTOCOLS.md names.
    assert [f["items"] for f in warnings] == [["03-01-03-01-02-01-07 = 03-01-03-01-02-02-07"]]
    assert report["utterances"] == 1440 and report["speakers"] == 24


@needs_shared
def test_command_on_real_emodb(capsys: pytest.CaptureFixture[str]) -> None:
    assert SHARED is not None
    assert main(["check", "emodb", str(SHARED / "data" / "emodb")]) == 1
    text = capsys.readouterr().out
    for line in (
        "339 of 535 utterances",
        "bored: 0 of 81",
        "disgusted: 0 of 46",
        "fearful: 0 of 69",
    ):
        assert line in text
    assert "3 errors, 0 warnings" in text


def test_a_check_reads_what_the_cache_knows_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the cache holds something else of a file, it is said once, and put right."""
    monkeypatch.setattr(scan_store, "YOUNG", -60.0)
    path = tmp_path / "tree" / "ann_sad_1.wav"
    write_wav(path)
    with contextlib.closing(scan_store.ScanStore(tmp_path / "cache")) as store:
        other = dataclasses.replace(examine(path), audio="0" * 64)
        store.put([(path, store.state(path), other)])
    for times in range(2):
        caplog.clear()
        check(toy(), path.parent, [utterance(path)], store=tmp_path / "cache", progress=False)
        assert ("is not what was kept of it" in caplog.text) == (times == 0)
