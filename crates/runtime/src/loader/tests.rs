use super::*;
use firelight_kernels::Recorder;

#[test]
fn a_linear_layer_adds_its_bias_and_does_without_one() {
    use firelight_tensor::{Tensor, safetensors};
    let dir = tempfile::tempdir().expect("a folder");
    let weight: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let weight = Tensor::from_f32(&weight, &[3, 8]).expect("a weight");
    let bias = Tensor::from_f32(&[100.0, -1000.0, 0.5], &[3]).expect("a bias");
    let tensors = [
        ("with.weight", &weight),
        ("with.bias", &bias),
        ("without.weight", &weight),
    ];
    let bytes = safetensors::write_to_vec(&Default::default(), tensors).expect("a file");
    std::fs::write(dir.path().join("model.safetensors"), bytes).expect("written");
    std::fs::write(dir.path().join("config.json"), "{}").expect("written");
    let checkpoint = Checkpoint::open(dir.path()).expect("opens");
    let device = Device::cpu(&firelight_kernels::CpuOptions {
        exact: true,
        ..Default::default()
    })
    .expect("a CPU");
    let mut progress = |_, _| ();
    let mut loader = Loader::new(&checkpoint, &device, |_| None, &mut progress);
    let x: Vec<f32> = (0..16)
        .map(|i| if i % 9 == 0 { 1.0 } else { 0.0 })
        .collect();
    let x = device.upload_f32(&x, &[2, 8]).expect("x");
    // The rows of x pick columns 0 and 1 of the weight.
    for (name, expected) in [
        ("with", [100.0, -992.0, 16.5, 101.0, -991.0, 17.5]),
        ("without", [0.0, 8.0, 16.0, 1.0, 9.0, 17.0]),
    ] {
        let layer = loader.linear(name, 3, 8).expect("loads");
        let mut rec = Recorder::new(&device);
        let y = layer.forward(&mut rec, &x).expect("records");
        let mut recording = rec.finish().expect("a recording");
        recording.submit().expect("runs");
        let y = pollster::block_on(device.read_f32(&y)).expect("f32");
        assert_eq!(y, expected, "{name}");
    }
}
