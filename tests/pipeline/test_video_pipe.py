"""Raw frames through ``run -i - -o -``: packed, in planes and as YUV4MPEG2."""

from __future__ import annotations

import io

import numpy as np
import pytest

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadInput, EnvironmentFault, UsageError
from sr_deploy.core.media.video.clip import Assumed
from sr_deploy.core.media.video.raw import PACKED, RawForm, raw_of_tensor, tensor_of_raw, y4m_form
from sr_deploy.core.yuv import YuvColour
from sr_deploy.pipeline.video.pipe import PipeOptions, upscale_pipe
from tests.nearest_network import SCALE, deployed

SIZE = (6, 10)
FLOATS = IOContract(1.0)


def raw_of_rgb(rgb, form):
    return raw_of_tensor(np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]), form, FLOATS)


def rgb_of_raw(data, form):
    return tensor_of_raw(data, form, FLOATS)[0].transpose(1, 2, 0)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return deployed(tmp_path_factory.mktemp("nearest"))


def through(net, data, **options):
    out = io.BytesIO()
    frames = upscale_pipe(PipeOptions(net, **options), io.BytesIO(data), out)
    return frames, out.getvalue()


@pytest.mark.parametrize("name", PACKED)
def test_packed_frames_come_back_enlarged_to_the_bit(net, name):
    kind = np.uint8 if PACKED[name][0] == 8 else np.uint16
    low = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, (3, *SIZE, 3)).astype(kind)
    frames, data = through(net, low.tobytes(), raw=(name, "10x6"))
    high = np.frombuffer(data, kind).reshape(3, SCALE * 6, SCALE * 10, 3)
    assert frames == 3
    assert np.array_equal(high, low.repeat(SCALE, 1).repeat(SCALE, 2))


@pytest.mark.parametrize("name", ["nv12", "p010le", "yuv420p", "yuv422p10le", "gray"])
def test_planes_of_every_order_are_understood(net, name):
    form = RawForm(name, SIZE, YuvColour("bt709"))
    grey = np.linspace(0.2, 0.8, 60, dtype=np.float32).reshape(6, 10, 1)
    rgb = np.repeat(grey, 3, 2) if name == "gray" else np.concatenate([grey, grey[::-1], 1 - grey], 2)
    assumed = Assumed() if name == "gray" else Assumed(matrix="bt709")
    data = raw_of_rgb(rgb, form)
    assert len(data) == form.frame_bytes
    _, out = through(net, data * 2, raw=(name, "10x6"), assumed=assumed)
    larger = form.enlarged(SCALE)
    assert len(out) == 2 * larger.frame_bytes
    before = rgb_of_raw(data, form).repeat(SCALE, 0).repeat(SCALE, 1)
    # Repeated pixels have edges, which 4:2:0 smears in colour and not in luma.
    weights = np.array([0.2126, 0.7152, 0.0722])
    assert np.abs((rgb_of_raw(out[: larger.frame_bytes], larger) - before) @ weights).max() < 0.02


def test_yuv4mpeg2_keeps_its_header(net):
    head = b"YUV4MPEG2 W10 H6 F30000:1001 Ip A4:3 C420paldv XYSCSS=420PALDV XCOLORRANGE=FULL\n"
    form, notes = y4m_form(io.BytesIO(head), Assumed())
    assert form.colour == YuvColour("bt601", "full", "topleft") and "bt601 is assumed" in notes[0]
    frame = raw_of_rgb(np.full((6, 10, 3), 0.5, np.float32), form)
    frames, out = through(net, head + (b"FRAME\n" + frame) * 2)
    assert frames == 2
    wanted = b"YUV4MPEG2 W20 H12 F30000:1001 Ip A4:3 C420paldv XYSCSS=420PALDV XCOLORRANGE=FULL\nFRAME\n"
    assert out.startswith(wanted) and len(out) == len(wanted) + 6 + 2 * form.enlarged(SCALE).frame_bytes


def test_a_pipe_that_ends_within_a_frame_says_so_after_the_whole_ones(net):
    out = io.BytesIO()
    with pytest.raises(BadInput, match="within frame 2: 5 of 180 bytes"):
        upscale_pipe(PipeOptions(net, ("rgb24", "10x6")), io.BytesIO(bytes(2 * 180 + 5)), out)
    assert len(out.getvalue()) == 2 * 180 * SCALE**2


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"RIFF", "YUV4MPEG2 header"),
        (b"", "YUV4MPEG2 header"),
        (b"YUV4MPEG2 W10\n", "no size"),
        (b"YUV4MPEG2 W10 H99999999\n", "no size"),
        (b"YUV4MPEG2 W10 H6 It\n", "interlaced"),
        (b"YUV4MPEG2 W10 H6 C411\n", "colour space"),
        (b"YUV4MPEG2 " + b"X" * 2000, "without an end"),
        (b"YUV4MPEG2 W10 H6\nFRAGE\n", "the word FRAME"),
    ],
)
def test_hostile_headers_are_bad_input(net, head, message):
    with pytest.raises(BadInput) as raised:
        through(net, head)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "-"), "does not say what comes"),
        (("-o", "-", "--y4m", "--raw", "rgb24", "8x8"), "does not say what comes"),
        (("-o", "out", "--y4m"), "go to a pipe"),
        (("-o", "-", "--y4m", "--json"), "--json would be among them"),
        (("-o", "-", "--y4m", "--crf", "3"), "--crf has no meaning"),
        (("-o", "-", "--y4m", "--force"), "--force has no meaning"),
        (("-o", "-", "--raw", "rgb24", "8"), "is no size"),
        (("-o", "-", "--raw", "rgb15", "8x8"), "--raw rgb15"),
        (("-o", "-", "--raw", "nv12", "8x8"), "does not say its matrix"),
        (("-o", "-", "--raw", "rgb24", "8x8", "--matrix", "bt709"), "has no matrix"),
        (("-o", "-", "--raw", "nv12", "8x8", "--matrix", "bt"), "there is no --matrix 'bt'"),
    ],
)
def test_what_contradicts_itself_is_a_usage_error(net, srdeploy, arguments, message):
    done = srdeploy("run", net, "-i", "-", *arguments)
    assert done.code == 2 and message in done.err + done.out


def test_a_reader_that_has_gone_is_no_traceback(net, tmp_path):
    class Closed(io.BytesIO):
        def write(self, data):
            raise BrokenPipeError

        def fileno(self):
            return handle.fileno()

    with open(tmp_path / "x", "wb") as handle, pytest.raises(EnvironmentFault, match="nobody reads"):
        upscale_pipe(PipeOptions(net, ("rgb24", "10x6")), io.BytesIO(bytes(180 * 9)), Closed())


def test_what_a_form_does_not_have_is_refused():
    with pytest.raises(UsageError, match="yuvj420p"):
        from sr_deploy.core.media.video.raw import raw_form

        raw_form("yuvj420p", "8x8", Assumed(matrix="bt709"), False)
