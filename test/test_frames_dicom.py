# SPDX-License-Identifier: Apache-2.0
"""DICOM: every transfer syntax, what the header says, what is refused, and damaged bytes."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.sequence import Sequence

from fedefm_core.errors import FrameError, FrameLimitError
from fedefm_core.frames import FrameLimits, Spacing, Window, open_source, to_grey8


def cine(frames=3, rows=12, columns=10, bits=12):
    """(frames, rows, columns) smooth values that use all of `bits`."""
    y, x = np.mgrid[:rows, :columns]
    ramp = (x * 37 + y * 11) % (1 << bits)
    ramp[0, 0], ramp[-1, -1] = 0, (1 << bits) - 1
    stack = np.stack([np.roll(ramp, index, axis=1) for index in range(frames)])
    return stack.astype(np.uint8 if bits <= 8 else np.uint16)


def make_dicom(pixels, bits=12, syntax=uid.ExplicitVRLittleEndian, encoded=None, **attributes):
    """A minimal XA data set of (frames, rows, columns[, 3]) pixels; encoded: frames as bytes."""
    header = Dataset()
    header.SOPClassUID = uid.XRayAngiographicImageStorage
    header.SOPInstanceUID = "1.2.3"
    header.Modality = "XA"
    header.Rows, header.Columns = pixels.shape[1:3]
    header.NumberOfFrames = len(pixels)
    header.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    header.PhotometricInterpretation = "RGB" if pixels.ndim == 4 else "MONOCHROME2"
    if pixels.ndim == 4:
        header.PlanarConfiguration = 0
    header.BitsAllocated = 8 * pixels.dtype.itemsize
    header.BitsStored, header.HighBit = bits, bits - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in attributes.items():
        setattr(header, name, value)
    if encoded is not None:
        header.PixelData = encapsulate(encoded, has_bot=True)
    else:
        header.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    header["PixelData"].VR = "OB" if encoded is not None or pixels.itemsize == 1 else "OW"
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    return header


def to_bytes(header):
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write(path, header):
    path.write_bytes(to_bytes(header))
    return path


def read(path):
    return list(open_source(path))


def rle(image):
    return RLELosslessEncoder.encode(
        image,
        rows=image.shape[0],
        columns=image.shape[1],
        samples_per_pixel=1 if image.ndim == 2 else 3,
        bits_allocated=8 * image.itemsize,
        bits_stored=8 * image.itemsize,
        pixel_representation=0,
        number_of_frames=1,
        photometric_interpretation="MONOCHROME2" if image.ndim == 2 else "RGB",
        planar_configuration=0,
    )


def jpeg2000(image):
    return imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k", reversible=True)


ENCODERS = {
    uid.JPEGLosslessSV1: lambda image, bits: imagecodecs.jpeg8_encode(
        image, lossless=True, predictor=1, bitspersample=bits
    ),
    uid.JPEGLossless: lambda image, bits: imagecodecs.jpeg8_encode(
        image, lossless=True, predictor=6, bitspersample=bits
    ),
    uid.JPEGLSLossless: lambda image, bits: imagecodecs.jpegls_encode(image),
    uid.JPEG2000Lossless: lambda image, bits: jpeg2000(image),
    uid.RLELossless: lambda image, bits: rle(image),
}


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
)
def test_uncompressed_is_exact(tmp_path, syntax, bits):
    pixels = cine(bits=bits)
    header = make_dicom(pixels, bits, syntax)
    if syntax == uid.ExplicitVRBigEndian:
        header.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    frames = read(write(tmp_path / "a.dcm", header))
    np.testing.assert_array_equal([frame.pixels for frame in frames], pixels)
    assert {frame.pixels.dtype for frame in frames} == {pixels.dtype}
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert not frames[0].pixels.flags.writeable


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda syntax: syntax.name)
def test_lossless_compression_is_exact(tmp_path, syntax, bits):
    pixels = cine(bits=bits)
    encoded = [ENCODERS[syntax](image, bits) for image in pixels]
    header = make_dicom(pixels, bits, syntax, encoded)
    frames = read(write(tmp_path / "a.dcm", header))
    np.testing.assert_array_equal([frame.pixels for frame in frames], pixels)
    assert frames[0].pixels.dtype == pixels.dtype


@pytest.mark.parametrize(
    ("syntax", "bits"), [(uid.JPEGBaseline8Bit, 8), (uid.JPEGExtended12Bit, 12)]
)
def test_lossy_jpeg_is_close(tmp_path, syntax, bits):
    y, x = np.mgrid[:32, :32]
    pixels = ((x + y) << bits - 7).astype(np.uint8 if bits == 8 else np.uint16)[None]
    encoded = [imagecodecs.jpeg8_encode(pixels[0], level=95, bitspersample=bits)]
    frames = read(write(tmp_path / "a.dcm", make_dicom(pixels, bits, syntax, encoded)))
    assert np.abs(frames[0].pixels.astype(int) - pixels[0]).max() <= 1 << bits - 5


def test_ljpeg_of_another_encoder(tmp_path):
    pixels = cine(1)
    encoded = [imagecodecs.ljpeg_encode(pixels[0], bitspersample=12)]
    header = make_dicom(pixels, 12, uid.JPEGLosslessSV1, encoded)
    np.testing.assert_array_equal(read(write(tmp_path / "a.dcm", header))[0].pixels, pixels[0])


@pytest.mark.parametrize("table", ["none", "basic", "extended"])
def test_offset_tables_and_fragments(tmp_path, table):
    pixels = cine(5)
    encoded = [jpeg2000(image) for image in pixels]
    header = make_dicom(pixels, 12, uid.JPEG2000Lossless, encoded)
    if table == "extended":
        data, offsets, lengths = encapsulate_extended(encoded)
        header.PixelData, header.ExtendedOffsetTable = data, offsets
        header.ExtendedOffsetTableLengths = lengths
    else:
        fragments = 2 if table == "basic" else 1
        header.PixelData = encapsulate(encoded, fragments, has_bot=table == "basic")
    frames = read(write(tmp_path / "a.dcm", header))
    np.testing.assert_array_equal([frame.pixels for frame in frames], pixels)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000])
def test_signed_pixels(tmp_path, syntax):
    pixels = cine(2).astype(np.int16) - 2048
    encoded = None
    if syntax == uid.RLELossless:
        encoded = [rle(image.view(np.uint16)) for image in pixels]
    elif syntax == uid.JPEG2000:
        encoded = [jpeg2000(image) for image in pixels]
    frames = read(write(tmp_path / "a.dcm", make_dicom(pixels, 12, syntax, encoded)))
    np.testing.assert_array_equal([frame.pixels for frame in frames], pixels)
    assert frames[0].pixels.dtype == np.int16


def test_bits_beyond_those_stored_are_ignored(tmp_path):
    pixels = cine()
    header = make_dicom(pixels | 0xF000)
    np.testing.assert_array_equal(read(write(tmp_path / "a.dcm", header))[0].pixels, pixels[0])
    header = make_dicom(pixels << 4 | 0x000F, HighBit=15)
    np.testing.assert_array_equal(read(write(tmp_path / "b.dcm", header))[0].pixels, pixels[0])


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [(1, -1024, np.int16), (2, 10, np.uint16), (0.5, 0, np.float32), (100, 0, np.float32)],
)
def test_rescale(tmp_path, slope, intercept, dtype):
    pixels = cine(1)
    header = make_dicom(pixels, RescaleSlope=str(slope), RescaleIntercept=str(intercept))
    frame = read(write(tmp_path / "a.dcm", header))[0]
    np.testing.assert_array_equal(frame.pixels, pixels[0] * np.float64(slope) + intercept)
    assert frame.pixels.dtype == dtype


def lookup_table(entries, first, bits):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes())
    item.ModalityLUTType = "US"
    return Sequence([item])


def test_modality_lut(tmp_path):
    pixels = cine(1)
    table = lookup_table(np.arange(100) * 7, first=50, bits=16)
    frame = read(write(tmp_path / "a.dcm", make_dicom(pixels, ModalityLUTSequence=table)))[0]
    np.testing.assert_array_equal(frame.pixels, np.clip(pixels[0].astype(int) - 50, 0, 99) * 7)


def test_lut_of_8_bit_entries_two_in_a_word(tmp_path):
    pixels = cine(1, bits=8)
    table = lookup_table([], 0, 8)
    table[0].LUTDescriptor = [255, 0, 8]
    table[0].LUTData = bytes(range(255, -1, -1))
    frame = read(write(tmp_path / "a.dcm", make_dicom(pixels, 8, ModalityLUTSequence=table)))[0]
    np.testing.assert_array_equal(frame.pixels, np.maximum(255 - pixels[0].astype(int), 1))


def test_modality_lut_back_to_beam_intensity_is_not_for_display(tmp_path):
    pixels = cine(1)
    table = lookup_table(np.arange(4096)[::-1], 0, 16)
    header = make_dicom(pixels, ModalityLUTSequence=table, PixelIntensityRelationship="LOG")
    np.testing.assert_array_equal(read(write(tmp_path / "a.dcm", header))[0].pixels, pixels[0])


def test_voi_lut(tmp_path):
    pixels = cine(1)
    table = lookup_table(np.arange(4096)[::-1] // 16, 0, 8)
    frame = read(write(tmp_path / "a.dcm", make_dicom(pixels, VOILUTSequence=table)))[0]
    np.testing.assert_array_equal(to_grey8(frame), (4095 - pixels[0]) // 16)


def test_window_goes_before_voi_lut_and_the_first_window_wins(tmp_path):
    header = make_dicom(cine(1), WindowCenter=[600, 1], WindowWidth=[400, 1])
    header.VOILUTSequence = lookup_table([1, 2], 0, 8)
    frame = read(write(tmp_path / "a.dcm", header))[0]
    assert frame.window == Window(600, 400)
    np.testing.assert_array_equal(frame.pixels, cine(1)[0])


def test_linear_exact_window(tmp_path):
    attributes = {"WindowCenter": 8, "WindowWidth": 16, "VOILUTFunction": "LINEAR_EXACT"}
    values = np.arange(17, dtype=np.uint16)[None, None]
    frame = read(write(tmp_path / "a.dcm", make_dicom(values, **attributes)))[0]
    np.testing.assert_array_equal(to_grey8(frame)[0], np.rint(np.arange(17) * 255 / 16))


def test_monochrome1_is_inverted(tmp_path):
    header = make_dicom(cine(1, bits=8), 8, PhotometricInterpretation="MONOCHROME1")
    frame = read(write(tmp_path / "a.dcm", header))[0]
    assert frame.inverted
    np.testing.assert_array_equal(to_grey8(frame), 255 - frame.pixels)


def functional_groups(**by_sequence):
    group = Dataset()
    for sequence, values in by_sequence.items():
        item = Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        setattr(group, sequence, Sequence([item]))
    return group


def test_enhanced_functional_groups(tmp_path):
    per_frame = [
        functional_groups(FrameVOILUTSequence={"WindowCenter": center, "WindowWidth": 100})
        for center in (10, 20)
    ]
    shared = functional_groups(
        PixelMeasuresSequence={"PixelSpacing": [0.2, 0.3]},
        PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": -5},
    )
    header = make_dicom(cine(2), PerFrameFunctionalGroupsSequence=Sequence(per_frame))
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = read(write(tmp_path / "a.dcm", header))
    assert [frame.window for frame in frames] == [Window(10, 100), Window(20, 100)]
    assert frames[1].spacing == Spacing(pixel_spacing_mm=(0.2, 0.3))
    np.testing.assert_array_equal(frames[1].pixels, cine(2)[1].astype(int) - 5)


def test_spacings_are_kept_apart(tmp_path):
    header = make_dicom(
        cine(1),
        ImagerPixelSpacing=[0.3, 0.4],
        PixelSpacing=[0.2, 0.25],
        DistanceSourceToDetector=1200,
        DistanceSourceToPatient=800,
    )
    expected = Spacing((0.3, 0.4), (0.2, 0.25), 1.5)
    assert read(write(tmp_path / "a.dcm", header))[0].spacing == expected
    header.EstimatedRadiographicMagnificationFactor = 1.3
    assert read(write(tmp_path / "b.dcm", header))[0].spacing.magnification == 1.3


@pytest.mark.parametrize(
    ("attributes", "stamps_ms", "rate"),
    [
        ({}, [0, 0, 0], None),
        ({"FrameTime": 40}, [0, 40, 80], 25),
        ({"CineRate": 50}, [0, 20, 40], 50),
        ({"RecommendedDisplayFrameRate": 10}, [0, 100, 200], 10),
        ({"FrameTime": 40, "RecommendedDisplayFrameRate": 10}, [0, 40, 80], 25),
        ({"FrameTimeVector": [0, 10, 30]}, [0, 10, 40], 50),
        ({"FrameTimeVector": [0, 10], "FrameTime": 40}, [0, 40, 80], 25),
        ({"FrameTime": 0}, [0, 0, 0], None),
    ],
)
def test_stamps(tmp_path, attributes, stamps_ms, rate):
    path = write(tmp_path / "a.dcm", make_dicom(cine(), **attributes))
    assert [frame.stamp_ns for frame in read(path)] == [ms * 1_000_000 for ms in stamps_ms]
    assert open_source(path).frame_rate_hz == pytest.approx(rate)


COLOUR = np.array([[[200, 100, 50], [0, 255, 0], [255, 255, 255], [9, 9, 9]]] * 2, np.uint8)[None]
LUMA = np.array([[124, 150, 255, 9]] * 2)


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_becomes_luma(tmp_path, planar):
    header = make_dicom(COLOUR, 8, Modality="OT", PlanarConfiguration=planar)
    if planar:
        header.PixelData = np.moveaxis(COLOUR, -1, 1).tobytes()
    np.testing.assert_allclose(read(write(tmp_path / "a.dcm", header))[0].pixels, LUMA, atol=1)


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless])
def test_compressed_rgb_becomes_luma(tmp_path, syntax):
    encode = ENCODERS[syntax]
    header = make_dicom(COLOUR, 8, syntax, [encode(COLOUR[0], 8)], Modality="OT")
    if syntax == uid.JPEG2000Lossless:
        header.PhotometricInterpretation = "YBR_RCT"
    np.testing.assert_allclose(read(write(tmp_path / "a.dcm", header))[0].pixels, LUMA, atol=1)


def test_jpeg_colour_becomes_luma(tmp_path):
    image = np.repeat(np.repeat(COLOUR[0][:, :1], 16, 0), 16, 1)
    as_ybr = imagecodecs.jpeg8_encode(image, level=100)
    as_rgb = imagecodecs.jpeg8_encode(image, level=100, colorspace="RGB", outcolorspace="RGB")
    for photometric, data in (("YBR_FULL_422", as_ybr), ("RGB", as_rgb)):
        header = make_dicom(image[None], 8, uid.JPEGBaseline8Bit, [data])
        header.PhotometricInterpretation = photometric
        frame = read(write(tmp_path / "a.dcm", header))[0]
        np.testing.assert_allclose(frame.pixels, 124, atol=2)


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_uncompressed_ybr_gives_its_luma(tmp_path, photometric):
    luma = np.arange(8, dtype=np.uint8).reshape(2, 4)
    full = np.stack([luma, luma + 100, luma + 200], -1)
    header = make_dicom(full[None], 8, PhotometricInterpretation=photometric)
    if photometric == "YBR_FULL_422":
        pairs = luma.reshape(-1, 2)
        header.PixelData = np.hstack([pairs, np.full((4, 2), 128, np.uint8)]).tobytes()
    np.testing.assert_array_equal(read(write(tmp_path / "a.dcm", header))[0].pixels, luma)


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"Modality": "CT"}, "modality must be X-ray.*got 'CT'"),
        ({"Modality": "US"}, "got 'US'"),
        ({"Modality": "SR"}, "got 'SR'"),
        ({"NumberOfFrames": 0}, "declares no frames"),
        ({"NumberOfFrames": -3}, "declares no frames"),
        ({"Rows": 0}, "the image is empty: 10 x 0"),
        ({"NumberOfFrames": 2**31 - 1}, "declares 2147483647 frames; the limit is 100000"),
        ({"Rows": 65535}, "10 x 65535 pixels; the limit is 16384"),
        ({"Rows": 16384, "Columns": 16384}, "268435456 pixels"),
        ({"NumberOfFrames": 4}, "truncated: 4 frames need 960 bytes of pixel data .got 720"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"BitsAllocated": 32}, "bits allocated"),
        ({"BitsStored": 20}, "bits stored 20"),
    ],
)
def test_what_is_refused_is_named(tmp_path, attributes, sentence):
    path = write(tmp_path / "bad.dcm", make_dicom(cine(), **attributes))
    with pytest.raises(FrameError, match=sentence) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_limits_can_be_set(tmp_path):
    path = write(tmp_path / "a.dcm", make_dicom(cine()))
    for limits in ({"max_frames": 2}, {"max_width": 9}, {"max_height": 11}, {"max_file_bytes": 9}):
        with pytest.raises(FrameLimitError, match="the limit is"):
            open_source(path, FrameLimits(**limits))


def test_codestream_larger_than_the_header_says(tmp_path):
    for syntax, encode in ENCODERS.items():
        encoded = [encode(cine(1, 64, 64)[0], 12)]
        path = write(tmp_path / "a.dcm", make_dicom(cine(1), 12, syntax, encoded))
        if syntax == uid.RLELossless:  # declares no size of its own: what is too much is left
            assert len(read(path)) == 1
            continue
        with pytest.raises(FrameError, match="64 x 64"):
            read(path)


def test_fewer_compressed_frames_than_declared(tmp_path):
    encoded = [jpeg2000(image) for image in cine(2)]
    path = write(tmp_path / "a.dcm", make_dicom(cine(3), 12, uid.JPEG2000Lossless, encoded))
    frames = iter(open_source(path))
    np.testing.assert_array_equal([next(frames).pixels, next(frames).pixels], cine(2))
    with pytest.raises(FrameError, match="truncated: it declares 3 frames and holds 2"):
        next(frames)


@pytest.mark.parametrize("offsets", [(64, 2**31), (0, 80), (200, 100), (64, 2**32 - 1)])
def test_rle_offsets_that_point_anywhere(tmp_path, offsets):
    encoded = bytearray(rle(cine(1)[0]))
    encoded[4:12] = struct.pack("<2I", *offsets)
    header = make_dicom(cine(1), 12, uid.RLELossless, [bytes(encoded)])
    with pytest.raises(FrameError, match="RLE segments do not lie"):
        read(write(tmp_path / "a.dcm", header))


@pytest.mark.parametrize(
    "syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGBaseline8Bit]
)
def test_codestream_with_more_samples_than_the_header_says(tmp_path, syntax):
    colour = np.repeat(cine(1, bits=8)[0][..., None], 3, -1)
    encode = ENCODERS.get(syntax, lambda image, bits: imagecodecs.jpeg8_encode(image))
    header = make_dicom(cine(1, bits=8), 8, syntax, [encode(colour, 8)])
    with pytest.raises(FrameError, match="of 3 samples, its header 10 x 12 of 1"):
        read(write(tmp_path / "a.dcm", header))


@pytest.mark.parametrize("syntax", [uid.DeflatedExplicitVRLittleEndian, uid.MPEG4HP41])
def test_unsupported_transfer_syntaxes_are_named(tmp_path, syntax):
    header = make_dicom(cine(1), syntax=syntax, encoded=[b"\0" * 10])
    with pytest.raises(FrameError, match="transfer syntax"):
        read(write(tmp_path / "a.dcm", header))


def test_encrypted(tmp_path):
    header = make_dicom(cine(1))
    for name in ("Rows", "Columns", "PixelData"):
        del header[name]
    item = Dataset()
    item.EncryptedContentTransferSyntaxUID = uid.ExplicitVRLittleEndian
    item.EncryptedContent = bytes(64)
    header.EncryptedAttributesSequence = Sequence([item])
    with pytest.raises(FrameError, match="encrypted"):
        read(write(tmp_path / "a.dcm", header))
    envelope = tmp_path / "b.dcm"
    envelope.write_bytes(bytes.fromhex("3080 06092a864886f70d010703 a080") + bytes(500))
    with pytest.raises(FrameError, match="encrypted: a CMS envelope"):
        read(envelope)


def test_directory_and_report_have_no_pixels(tmp_path):
    header = make_dicom(cine(1))
    header.SOPClassUID = uid.MediaStorageDirectoryStorage
    header.file_meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    with pytest.raises(FrameError, match="DICOMDIR"):
        read(write(tmp_path / "DICOMDIR", header))
    header = make_dicom(cine(1))
    del header.PixelData
    with pytest.raises(FrameError, match="pixel data is missing"):
        read(write(tmp_path / "a.dcm", header))


def test_without_preamble(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(to_bytes(make_dicom(cine()))[132:])
    np.testing.assert_array_equal([frame.pixels for frame in read(path)], cine())


FUZZED = {
    "native": to_bytes(make_dicom(cine(2), FrameTime=33, WindowCenter=1, WindowWidth=2)),
    **{
        syntax.name: to_bytes(
            make_dicom(cine(2), 12, syntax, [encode(image, 12) for image in cine(2)])
        )
        for syntax, encode in ENCODERS.items()
    },
}
FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def frames_or_frame_error(path, data):
    path.write_bytes(data)
    try:
        frames = read(path)
    except FrameError:
        return
    assert all(to_grey8(frame).shape == frame.pixels.shape for frame in frames)


@pytest.mark.parametrize("name", FUZZED)
@FUZZ
@given(share=st.floats(0, 1))
def test_any_prefix(tmp_path, name, share):
    data = FUZZED[name]
    frames_or_frame_error(tmp_path / "a.dcm", data[: int(share * len(data))])


@pytest.mark.parametrize("name", FUZZED)
@FUZZ
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), min_size=1, max_size=12))
def test_any_flipped_bits(tmp_path, name, flips):
    data = bytearray(FUZZED[name])
    for place, bit in flips:
        data[int(place * (len(data) - 1))] ^= 1 << bit
    frames_or_frame_error(tmp_path / "a.dcm", bytes(data))


@FUZZ
@given(data=st.binary(max_size=400))
def test_any_bytes_after_the_prefix(tmp_path, data):
    frames_or_frame_error(tmp_path / "a.dcm", bytes(128) + b"DICM" + data)


def test_huge_element_length_takes_no_memory(tmp_path):
    data = bytes(128) + b"DICM" + struct.pack("<HH2sHI", 0x0009, 1, b"OB", 0, 0xFFFFFFF0)
    frames_or_frame_error(tmp_path / "a.dcm", data)


def test_real_cine(shared_data):
    source = open_source(shared_data / "xa_dicom" / "0002.DCM")
    frames = list(source)
    assert source.frame_rate_hz == pytest.approx(1000 / 33)
    assert len(frames) == source.frame_count == 96
    assert {(frame.pixels.shape, frame.pixels.dtype.name) for frame in frames} == {
        ((512, 512), "uint8")
    }
    assert frames[95].stamp_ns == 95 * 33_000_000
    assert frames[0].spacing == Spacing()  # the file names none
    assert frames[0].pixels.std() > 10


def test_real_single_frame(shared_data):
    (frame,) = open_source(shared_data / "xa_dicom" / "0015.DCM")
    assert frame.pixels.shape == (1024, 1024)
    assert frame.window == Window(127, 255)
