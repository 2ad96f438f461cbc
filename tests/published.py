"""The shared checkpoints whose published code's outputs are at hand."""

#: The ten checkpoints with golden outputs: file in weights/, file in golden/, value range.
GOLDEN = (
    ("efdn_x4.pth", "efdn_x4.npz", 1.0),
    ("efdn_x2.pth", "efdn_x2.npz", 1.0),
    ("span_ch26_x4.pth", "span_ch26_x4.npz", 1.0),
    ("span_ch28_x4.pth", "span_ch28_x4.npz", 1.0),
    ("dsclora_x4.pth", "dsclora_x4.npz", 1.0),
    ("f2srgan_x4.pt", "f2srgan_x4.npz", 255.0),
    ("f2srgan_x2.pt", "f2srgan_x2.npz", 255.0),
    ("f2srgan_x4_qat.pth.tar", "f2srgan_x4_qat.npz", 255.0),
    ("f2srgan_x4_student.pt", "f2srgan_x4_student.npz", 255.0),
    ("light_f2srgan_x4_whole_module.pt", "light_f2srgan_x4_whole_module.npz", 255.0),
)
