"""CREMA-D's published votes: read as they are, checked against the table's own totals."""

from __future__ import annotations

from pathlib import Path

import pytest

from emopeft.downstream.corpora import cremad
from emopeft.downstream.corpora.base import CORPORA
from emopeft.errors import UserError
from tests.corpora.test_names import load
from tests.corpora.trees import touch_all
from tests.shared import SHARED, needs_shared

RATERS = {"voice": 68568, "face": 71654, "both": 71778}  # sums of numResponses, by another program
HEAD = '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"\n'


def votes_table(place: Path, *rows: str) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(HEAD + "".join(f"{row}\n" for row in rows))
    return place


VOTED = (
    '"100001",0,0,0,3,6,0,"1001_DFA_ANG_XX",9,0.666666666666667,"N"',
    '"200001",0,0,0,9,0,1,"1001_DFA_ANG_XX",10,0.9,"H"',
    '"300001",5,5,0,0,0,0,"1001_DFA_ANG_XX",10,0.5,"A:D"',
)


def test_cremad_votes(tmp_path: Path) -> None:
    touch_all(tmp_path, ["AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1002_DFA_ANG_XX.wav"])
    assert {u.votes == {} for u in load("cremad", tmp_path).values()} == {True}
    table = votes_table(tmp_path / "elsewhere/tabulatedVotes.csv", *VOTED)
    heard = {"happy": 3.0, "neutral": 6.0}
    for place in (str(table), table.parent):
        found = load("cremad", tmp_path, votes=place)
        assert found["1001_DFA_ANG_XX"].votes == heard and found["1002_DFA_ANG_XX"].votes == {}
        assert found["1001_DFA_ANG_XX"].emotion == "angry"  # the intended one
    both = load("cremad", tmp_path, votes=table, votes_of="both")
    assert both["1001_DFA_ANG_XX"].votes == {"angry": 5.0, "disgusted": 5.0}
    with pytest.raises(UserError, match=r"no tabulatedVotes\.csv at"):
        load("cremad", tmp_path, votes_of="face")
    votes_table(tmp_path / "processedResults/tabulatedVotes.csv", *VOTED)  # as it is published
    assert load("cremad", tmp_path)["1001_DFA_ANG_XX"].votes == heard
    assert load("cremad", tmp_path / "AudioWAV")["1001_DFA_ANG_XX"].votes == heard
    seen = load("cremad", tmp_path, votes_of="face")["1001_DFA_ANG_XX"].votes
    assert seen == {"happy": 9.0, "sad": 1.0}
    with pytest.raises(UserError, match="unknown choice of votes_of 'vioce': did you mean voice"):
        load("cremad", tmp_path, votes_of="vioce")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (VOTED[0].replace(",9,", ",10,"), "line 2: .*do not add up to 10 raters"),
        (VOTED[0].replace("0.666666666666667", "0.7"), "do not give an agreement of 0.7"),
        (VOTED[0].replace(",3,6,", ",-3,12,"), "do not add up"),
        (VOTED[0].replace("1001_DFA", "1001 DFA"), "is no clip, or stands twice"),
        (f"{VOTED[0]}\n{VOTED[0]}", "line 3: .*is no clip, or stands twice"),
        (VOTED[0].replace("100001", "many"), "line 2: .*invalid literal"),
        ('"100001",1', "line 2: this is not CREMA-D's"),
        (VOTED[1], "holds no votes on the voice"),
    ],
)
def test_a_table_of_votes_that_does_not_add_up(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cremad.votes(votes_table(tmp_path / "tabulatedVotes.csv", row))
    (tmp_path / "tabulatedVotes.csv").write_text("who,what\n1,2\n")
    with pytest.raises(UserError, match=r"line 2: this is not CREMA-D's tabulatedVotes\.csv"):
        cremad.votes(tmp_path)


@needs_shared
def test_cremad_real_votes() -> None:
    """The published table: every clip, every way of rating, its own totals."""
    assert SHARED is not None
    meta = SHARED / "data" / "cremad_meta"
    assert CORPORA["cremad"].hashes is not None
    clips = {Path(name).stem for name in CORPORA["cremad"].hashes(meta)}
    raters = {}
    for of in ("voice", "face", "both"):
        found = cremad.votes(meta, of)
        assert set(found) == clips and len(found) == 7442
        raters[of] = round(sum(sum(v.values()) for v in found.values()))
    assert raters == RATERS
    heard = cremad.votes(meta)
    assert heard["1001_IEO_NEU_XX"] == {"happy": 1, "neutral": 10}  # its first line
    # EMO-SUPERB's own labels of the clips as heard (data/CREMA-D/Primary/labels_consensus_1.csv,
    # 0.94 share + 0.01), where it kept no more raters than the table did; in its order.
    published = {
        "1070_WSI_FEA_XX": (0.01, 0.01, 0.104, 0.01, 0.668, 0.198),
        "1064_TSI_FEA_XX": (0.01, 0.01, 0.01, 0.95, 0.01, 0.01),
        "1045_WSI_FEA_XX": (0.01, 0.218889, 0.114444, 0.01, 0.636667, 0.01),
        "1067_IWW_DIS_XX": (0.01, 0.218889, 0.218889, 0.323333, 0.218889, 0.01),
    }
    order = ("angry", "sad", "disgusted", "fearful", "neutral", "happy")
    for clip, shares in published.items():
        total = sum(heard[clip].values())
        ours = [0.94 * heard[clip].get(label, 0) / total + 0.01 for label in order]
        assert ours == pytest.approx(shares, abs=1e-6)
