# SPDX-License-Identifier: Apache-2.0
import json
import resource
import subprocess
import sys

import cv2
import numpy as np
import pytest
from cli_runner import run_cli
from model_fixture import draw_instruments, write_threshold_model

from fedefm_core.cli.predictions import PredictionWriter, frame_row
from fedefm_core.errors import OutputError
from fedefm_core.perception import Instrument, Perception, Segmenter, TrackingState

WIRE = [(0, 20), (60, 40), (90, 70)]
CATHETER = [(0, 100), (60, 110)]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_threshold_model(tmp_path_factory.mktemp("model") / "threshold.onnx")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def write_image(path, **instruments):
    image = draw_instruments(**(instruments or {"guidewire": WIRE, "catheter": CATHETER}))
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def predict(*arguments, model):
    return run_cli("predict", "--model", model, *arguments)


def rows(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def files(out):
    return sorted(path.name for path in out.iterdir())


def test_one_image(images, tmp_path, model):
    write_image(images / "a.png")
    out = tmp_path / "new" / "out"
    result = predict(images / "a.png", "--out", out, model=model)
    assert (result.code, result.err) == (0, "")
    assert files(out) == ["a_mask.png", "a_overlay.png", "predictions.jsonl"]
    mask = cv2.imread(str(out / "a_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (128, 128)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1, 2}
    assert cv2.imread(str(out / "a_overlay.png"), cv2.IMREAD_UNCHANGED).shape == (128, 128, 3)
    (row,) = rows(out)
    assert (row["name"], row["frame"], row["width"], row["height"]) == ("a", 1, 128, 128)
    assert (row["mask"], row["overlay"]) == ("a_mask.png", "a_overlay.png")
    assert row["model"].startswith("threshold@")
    assert row["timings_ms"]["total"] > 0
    tips = {found["kind"]: found["tip_px"] for found in row["instruments"]}
    assert tips["guidewire"] == pytest.approx(WIRE[-1], abs=3)
    assert tips["catheter"] == pytest.approx(CATHETER[-1], abs=4)
    for found in row["instruments"]:
        assert 0 <= found["confidence"] <= 1
        assert found["heading_rad"] is not None


def test_mask_has_the_size_of_the_input(images, tmp_path, model):
    big = cv2.resize(draw_instruments(guidewire=WIRE), (300, 200), interpolation=cv2.INTER_NEAREST)
    (images / "big.png").write_bytes(cv2.imencode(".png", big)[1].tobytes())
    assert predict(images, "--out", tmp_path / "out", model=model).code == 0
    assert cv2.imread(str(tmp_path / "out/big_mask.png"), -1).shape == (200, 300)
    assert (rows(tmp_path / "out")[0]["width"], rows(tmp_path / "out")[0]["height"]) == (300, 200)


def test_no_instrument_is_a_row_without_instruments(images, tmp_path, model):
    (images / "blank.png").write_bytes(
        cv2.imencode(".png", np.full((128, 128), 200, np.uint8))[1].tobytes()
    )
    assert predict(images, "--out", tmp_path / "out", model=model).code == 0
    assert rows(tmp_path / "out")[0]["instruments"] == []
    assert rows(tmp_path / "out")[0]["state"] == "LOST"


@pytest.fixture
def events(monkeypatch):
    """What happens to the tracker: 'reset', or the number of the frame it sees."""
    happened = []
    process = Segmenter.process

    def recorded(self, frame):
        happened.append(frame.index + 1)
        return process(self, frame)

    monkeypatch.setattr(Segmenter, "warm_up", lambda self: None)
    monkeypatch.setattr(Segmenter, "reset", lambda self: happened.append("reset"))
    monkeypatch.setattr(Segmenter, "process", recorded)
    return happened


def test_cine_is_numbered_and_tracked_in_sequence(tmp_path, model, events):
    path = write_cine(tmp_path / "cine.dcm", frames=3)
    out = tmp_path / "out"
    assert predict(path, "--out", out, model=model).code == 0
    assert [row["name"] for row in rows(out)] == ["cine_0001", "cine_0002", "cine_0003"]
    assert [row["frame"] for row in rows(out)] == [1, 2, 3]
    assert "cine_0002_mask.png" in files(out)
    assert "cine_0003_overlay.png" in files(out)
    assert events == ["reset", 1, 2, 3]


def test_tracker_is_reset_between_files(images, tmp_path, model, events):
    write_image(images / "a.png")
    write_cine(images / "b.dcm", frames=2)
    write_image(images / "c.png")
    assert predict(images, "--out", tmp_path / "out", model=model).code == 0
    assert events == ["reset", 1, "reset", 1, 2, "reset", 1]


def write_cine(path, frames):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage, generate_uid

    pixels = np.stack([draw_instruments(guidewire=WIRE)] * frames)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = XRayAngiographicImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID = XRayAngiographicImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.Modality = "XA"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("names", [("a.png", "a.bmp"), ("a.png", "A.bmp")])
def test_two_inputs_of_one_stem_are_refused_before_anything_is_written(
    images, tmp_path, model, names
):
    for name in names:
        write_image(images / name)
    result = predict(images, "--out", tmp_path / "out", model=model)
    assert result.code == 1
    assert all(name in result.err for name in names)
    assert "Nothing was written" in result.err
    assert not (tmp_path / "out").exists()


def test_a_number_that_collides_with_a_frame_of_a_cine_is_refused(images, tmp_path, model):
    write_cine(images / "a.dcm", frames=2)
    write_image(images / "a_0002.png")
    result = predict(images, "--out", tmp_path / "out", model=model)
    assert result.code == 1
    assert "would both be written as a_0002_mask.png" in result.err


def test_bad_files_are_set_aside_and_listed(images, tmp_path, model):
    good = write_image(images / "good.png")
    (images / "cut.png").write_bytes(good.read_bytes()[:100])
    (images / "empty.png").write_bytes(b"")
    (images / "notes.txt").write_text("not an image, not listed")
    write_image(images / "later.png")
    result = predict(images, "--out", tmp_path / "out", model=model)
    assert result.code == 0
    assert [row["name"] for row in rows(tmp_path / "out")] == ["good", "later"]
    assert "Set aside (2)" in result.err
    assert "cut.png" in result.err
    assert "empty.png" in result.err
    assert "notes.txt" not in result.err


def test_only_bad_files_is_an_error(images, tmp_path, model):
    (images / "empty.png").write_bytes(b"")
    result = predict(images, "--out", tmp_path / "out", model=model)
    assert result.code == 1
    assert "empty.png" in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "out").exists()


def test_output_folder_must_be_empty_unless_overwritten(images, tmp_path, model):
    write_image(images / "a.png")
    out = tmp_path / "out"
    assert predict(images, "--out", out, model=model).code == 0
    again = predict(images, "--out", out, model=model)
    assert again.code == 1
    assert "--overwrite" in again.err

    (images / "a.png").rename(images / "b.png")
    (out / "kept.txt").write_text("of somebody else")
    assert predict(images, "--out", out, "--overwrite", model=model).code == 0
    assert files(out) == ["b_mask.png", "b_overlay.png", "kept.txt", "predictions.jsonl"]


def test_overwrite_removes_only_what_predict_wrote(tmp_path):
    out, outside = tmp_path / "out", tmp_path / "x_mask.png"
    out.mkdir()
    outside.write_text("keep")
    (out / "notes.png").write_text("keep")
    lines = [
        {"mask": "../x_mask.png", "overlay": "notes.png"},
        {"mask": str(outside), "overlay": 3},
        ["no row"],
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"mask": "half'
    (out / "predictions.jsonl").write_text(text)
    with PredictionWriter(out, overwrite=True):
        pass
    assert outside.exists()
    assert files(out) == ["notes.png", "predictions.jsonl"]


def test_results_may_not_go_among_the_images(images, model):
    write_image(images / "a.png")
    result = predict(images, "--out", images, "--overwrite", model=model)
    assert result.code == 1
    assert files(images) == ["a.png"]


def wrong_arguments(tmp_path):
    image = write_image(tmp_path / "a.png")
    text = tmp_path / "text.txt"
    text.write_text("no image")
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out"
    return [
        (["predict"], 2, "Missing argument"),
        (["predict", image], 2, "--out"),
        (["predict", image, "--out", out, "--nonsense"], 2, "--nonsense"),
        (["predict", image, "--out", out, "--threads", "-1"], 2, "threads"),
        (["predict", image, "--out", out, "--threads", "x"], 2, "threads"),
        (["predict", tmp_path / "no.png", "--out", out], 1, "no.png"),
        (["predict", text, "--out", out], 1, "text.txt"),
        (["predict", empty, "--out", out], 1, "holds no image"),
        (["predict", "", "--out", out], 1, "no file or folder ''"),
        (["predict", "/dev/null", "--out", out], 1, "/dev/null"),
        (["predict", image, "--out", image], 1, "must be a folder"),
        (["predict", image, "--out", image / "below"], 1, "Cannot write"),
        (["predict", image, "--out", out, "--model", "no-such"], 1, "no-such"),
        (["predict", image, "--out", out, "--model", text], 1, "text.txt"),
        (["predict", image, "--out", out, "--model", empty], 1, "empty"),
        (["predict", image, "--out", out, "--runtime", "abacus"], 1, "abacus"),
        (["predict", image, "--out", out, "--runtime", "tensorrt"], 1, "TensorRT"),
    ]


def test_wrong_arguments_are_answered_with_a_sentence(tmp_path, model):
    for arguments, code, message in wrong_arguments(tmp_path):
        extra = [] if "--model" in arguments else ["--model", model]
        result = run_cli(*arguments, *extra)
        assert result.code == code, (arguments, result)
        assert message in result.err, (arguments, result)
        assert "Traceback" not in result.err
        assert not (tmp_path / "out").exists(), arguments


def test_unwritable_folder(images, tmp_path, model, monkeypatch):
    """Permissions do not bind root, so the refusal of the system is simulated."""
    write_image(images / "a.png")

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    result = predict(images, "--out", tmp_path / "out", model=model)
    assert result.code == 1
    assert "Cannot write" in result.err
    assert "Permission denied" in result.err


def test_full_disk_leaves_whole_frames_only(images, tmp_path, model):
    """A limit on the size of files stands in for a full disk; the overlays are what exceeds it."""
    write_image(images / "a.png")
    noise = np.random.default_rng(0).integers(90, 255, (600, 600)).astype(np.uint8)
    (images / "b.png").write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    out = tmp_path / "out"
    code = "import sys; from fedefm_core.cli import main; sys.argv[0] = 'fedefm_core'; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", images, "--out", out, "--model", model],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert "1 frames written" in done.stdout
    assert [row["name"] for row in rows(out)] == ["a"]
    assert [name for name in files(out) if name.startswith(".")] == []


def test_interrupted_run_keeps_what_was_written(images, tmp_path, model, monkeypatch):
    for name in "abc":
        write_image(images / f"{name}.png")
    process = Segmenter.process

    def interrupted(self, frame):
        if frame.source.endswith("c.png"):
            raise KeyboardInterrupt
        return process(self, frame)

    monkeypatch.setattr(Segmenter, "process", interrupted)
    result = predict(images, "--out", tmp_path / "out", model=model)
    assert result.code == 130
    assert "Traceback" not in result.err
    assert "2 frames written" in result.out
    assert [row["name"] for row in rows(tmp_path / "out")] == ["a", "b"]


def perception(**fields):
    found = Instrument("guidewire", np.zeros((2, 2)), None, None, None, 0.5, 3.0)
    values = {
        "stamp_ns": 5,
        "label_map": np.zeros((4, 6), np.uint8),
        "instruments": (found,),
        "tracked": {"guidewire": found},
        "state": TrackingState.TRACKING,
    }
    return Perception(**{**values, **fields})


def test_a_missing_tip_is_null():
    row = frame_row("a.png", 1, perception(), "m@1")
    assert row["instruments"][0]["tip_px"] is None
    assert row["tracked"]["guidewire"]["heading_rad"] is None
    assert (row["width"], row["height"], row["state"]) == (6, 4, "TRACKING")


def test_unwritable_line_leaves_no_half_line(tmp_path):
    with PredictionWriter(tmp_path / "out") as writer:
        row = frame_row("a.png", 1, perception(), "m@1")
        writer.write("a", row, np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.uint8))
        stream = writer._lines

        class FullDisk:
            room = 10

            def __getattr__(self, name):
                return getattr(stream, name)

            def write(self, data):
                if self.room == 0:
                    raise OSError(28, "No space left on device")
                written = stream.write(data[: self.room])
                self.room -= written
                return written

        writer._lines = FullDisk()
        with pytest.raises(OutputError, match="No space left"):
            writer.write("b", row, np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.uint8))
    assert [r["name"] for r in rows(tmp_path / "out")] == ["a"]


def test_real_cine(shared_data, tmp_path, model):
    path = shared_data / "xa_dicom" / "0002.DCM"
    assert predict(path, "--out", tmp_path / "out", model=model).code == 0
    found = rows(tmp_path / "out")
    assert len(found) == 96
    assert found[-1]["name"] == "0002_0096"
    assert cv2.imread(str(tmp_path / "out/0002_0050_mask.png"), -1).shape == (512, 512)
