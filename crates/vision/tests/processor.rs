//! Processors and patches against transformers' values, and what bad configurations do.

mod common;
use common::{crc32, picture};
use firelight_tensor::Tensor;
use firelight_vision::{
    Error, Image, Layout, Normalize, Overrides, PatchLayout, PatchOrder, Processor, Reference,
    patchify,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn numbers(v: &Value) -> Vec<usize> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_u64().unwrap() as usize)
        .collect()
}

/// What is wrong with `ours` against a golden: its shape, its bits, or values further off than `tolerance`.
fn fault(ours: &Tensor, golden: &Value) -> Option<String> {
    if ours.shape() != numbers(&golden["shape"]) || ours.dtype().to_string() != golden["dtype"] {
        return Some(format!("{} {:?}", ours.dtype(), ours.shape()));
    }
    if format!("{:08x}", crc32(ours.bytes().iter().copied())) == golden["crc"] {
        return None;
    }
    let values = ours.to_f32_vec().unwrap_or_default();
    let spots = golden["spots"].as_array().unwrap().iter().map(|s| {
        (
            values.get(s[0].as_u64().unwrap() as usize).copied(),
            s[1].as_f64().unwrap() as f32,
        )
    });
    Some(format!(
        "other bits; (ours, reference) at spots: {:?}",
        spots.collect::<Vec<_>>()
    ))
}

fn goldens(text: &str) -> Vec<Value> {
    serde_json::from_str::<Vec<Value>>(text).unwrap()
}

#[test]
fn equals_transformers_to_the_last_bit() {
    let cases = goldens(include_str!("data/processors.json"));
    assert!(cases.len() >= 50);
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for case in &cases {
        let images: Vec<Image> = case["images"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
            .map(|(i, size)| picture(numbers(size)[0], numbers(size)[1], i as u32))
            .collect();
        let processor = Processor::from_config(&case["config"].to_string()).unwrap();
        let made = match (processor.process(&images), case.get("refused")) {
            (Err(Error::InvalidInput(_)), Some(_)) => {
                refused += 1;
                continue;
            }
            (Ok(made), None) => made,
            (result, reference) => {
                wrong.push(format!(
                    "{}: {:?}, the reference: {reference:?}",
                    case["config"],
                    result.map(|made| made.plans)
                ));
                continue;
            }
        };
        let tensors = made.tensors().unwrap();
        let goldens = case["tensors"].as_array().unwrap();
        let names = |t: &[(&str, Tensor)]| t.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>();
        let expected: Vec<_> = goldens
            .iter()
            .map(|g| g["name"].as_str().unwrap())
            .collect();
        if names(&tensors) != expected {
            wrong.push(format!("{}: names {:?}", case["config"], names(&tensors)));
        }
        for ((name, tensor), golden) in tensors.iter().zip(goldens) {
            if let Some(fault) = fault(tensor, golden) {
                wrong.push(format!(
                    "{} {} {name}: {fault}",
                    case["config"], case["images"]
                ));
            }
        }
        // The plan, which knows the sizes alone, says what was made.
        let planned = images
            .iter()
            .map(|i| processor.plan(i.width(), i.height()).unwrap());
        assert_eq!(made.plans, planned.collect::<Vec<_>>());
        let shape = made.pixel_values.shape();
        match made.plans[0].layout {
            Layout::Tiles { .. } => {
                assert_eq!(
                    shape[1],
                    made.plans.iter().map(|p| p.inputs()).sum::<usize>()
                );
            }
            Layout::Grid { .. } => {
                let patches = |p: &firelight_vision::Plan| match p.layout {
                    Layout::Grid { t, h, w, .. } => t * h * w,
                    _ => 0,
                };
                assert_eq!(shape[0], made.plans.iter().map(patches).sum::<usize>());
            }
            _ => assert_eq!(shape[0], images.len()),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert!(refused >= 4, "{refused}");
}

#[test]
fn one_wrong_value_is_noticed() {
    let case = &goldens(include_str!("data/patches.json"))[0];
    let patches = cut(case);
    assert_eq!(fault(&patches, case), None);
    let mut values = patches.as_f32().unwrap().to_vec();
    values[17] = f32::from_bits(values[17].to_bits() ^ 1);
    assert!(fault(&Tensor::from_f32(&values, patches.shape()).unwrap(), case).is_some());
}

fn cut(case: &Value) -> Tensor {
    let size = numbers(&case["size"]);
    let pixels = Normalize::new(Some(1.0 / 255.0), None, Reference::Torchvision).unwrap();
    let pixels = pixels.apply(&picture(size[0], size[1], 1)).unwrap();
    let (temporal, merge, order) = match case["of"] == "qwen2_vl" {
        true => (2, 2, PatchOrder::ChannelFirst),
        false => (1, 1, PatchOrder::ChannelLast),
    };
    let layout = PatchLayout {
        patch: 4,
        temporal,
        merge,
        order,
    };
    let patches = patchify(&pixels, layout).unwrap();
    assert_eq!(patches.grid.to_vec(), numbers(&case["grid"]));
    patches.values
}

#[test]
fn patches_equal_qwen2_vl_and_gemma4() {
    for case in &goldens(include_str!("data/patches.json")) {
        assert_eq!(
            fault(&cut(case), case),
            None,
            "{} {}",
            case["of"],
            case["size"]
        );
    }
}

#[test]
fn a_batch_is_its_pictures() {
    let p = Processor::from_config(
        r#"{"image_processor_type": "SiglipImageProcessor", "size": {"height": 9, "width": 7}}"#,
    )
    .unwrap();
    let images = [picture(20, 30, 1), picture(5, 5, 2), picture(9, 7, 3)];
    let batch = p.process(&images).unwrap().pixel_values;
    for (i, image) in images.iter().enumerate() {
        let one = p.process(std::slice::from_ref(image)).unwrap().pixel_values;
        assert_eq!(one.as_f32(), batch.slice_outer(i..i + 1).unwrap().as_f32());
    }
}

#[test]
fn pictures_of_different_sizes_make_no_batch() {
    let p = Processor::from_config(
        r#"{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8}, "do_center_crop": false}"#,
    )
    .unwrap();
    let result = p.process(&[picture(10, 20, 0), picture(20, 10, 0)]);
    assert!(matches!(result, Err(Error::InvalidInput(_))), "{result:?}");
    assert!(matches!(p.process(&[]), Err(Error::InvalidInput(_))));
    assert!(p.process(&[picture(10, 20, 0), picture(10, 20, 1)]).is_ok());
}

#[test]
fn older_spellings_and_nesting() {
    let new = json!({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 30}, "crop_size": {"height": 20, "width": 20}});
    let p = |v: &Value| Processor::from_config(&v.to_string()).unwrap();
    let old =
        json!({"feature_extractor_type": "CLIPFeatureExtractor", "size": 30, "crop_size": 20});
    assert_eq!(p(&new), p(&old));
    let fast = json!({"image_processor_type": "CLIPImageProcessorFast", "size": 30, "crop_size": [20, 20]});
    assert_eq!(p(&new), p(&fast));
    assert_eq!(
        p(&new),
        p(&json!({"image_processor": new, "processor_class": "CLIPProcessor"}))
    );
    let pil = Processor::from_config_as(&new.to_string(), Reference::Pillow).unwrap();
    assert_ne!(p(&new), pil);
    let named =
        json!({"image_processor_type": "CLIPImageProcessorPil", "size": 30, "crop_size": 20});
    assert_eq!(p(&named), pil);
}

#[test]
fn bad_configurations_are_named() {
    let bad = |v: Value| Processor::from_config(&v.to_string()).unwrap_err();
    let with = |key: &str, value: Value| {
        let mut m = json!({"image_processor_type": "CLIPImageProcessor"});
        m[key] = value;
        m
    };
    for (key, value) in [
        ("size", json!({"shortest_edge": 0})),
        ("size", json!({"shortest_edge": -4})),
        ("size", json!({"shortest_edge": 3.5})),
        ("size", json!("big")),
        ("crop_size", json!({"height": 4})),
        ("resample", json!(6)),
        ("resample", json!("bicubic")),
        ("image_std", json!([0.5, 0.0, 0.5])),
        ("image_std", json!([1e-60, 0.5, 0.5])),
        ("image_mean", json!([0.5, 0.5])),
        ("image_mean", json!("none")),
        ("rescale_factor", json!(0)),
        ("do_resize", json!(1)),
    ] {
        let e = bad(with(key, value.clone()));
        assert!(matches!(e, Error::InvalidInput(_)), "{key} {value}: {e:?}");
    }
    for (key, value) in [
        ("do_pad", json!(true)),
        ("size", json!({"longest_edge": 4})),
        ("image_processor_type", json!("LlavaNextImageProcessor")),
        ("image_processor_type", json!("ImageProcessor")),
    ] {
        let e = bad(with(key, value.clone()));
        assert!(matches!(e, Error::Unsupported(_)), "{key} {value}: {e:?}");
    }
    assert!(matches!(
        bad(with("size", json!(1 << 20))),
        Error::Limit { .. }
    ));
    assert!(matches!(bad(json!({})), Error::InvalidInput(_)));
    assert!(matches!(bad(json!([1])), Error::InvalidInput(_)));
    let e = Processor::from_config("{\n  \"size\": }").unwrap_err();
    assert!(matches!(e, Error::Malformed { offset: 12, .. }), "{e:?}");
    // Nested past the parser's depth, and cut short.
    assert!(Processor::from_config(&"[".repeat(100_000)).is_err());
    assert!(Processor::from_config("").is_err());
}

#[test]
fn box_and_hamming_are_pillows_alone() {
    for resample in [4, 5] {
        let text = |class: &str| {
            json!({"image_processor_type": class, "size": 9, "resample": resample}).to_string()
        };
        let torch = Processor::from_config(&text("ViTImageProcessor")).unwrap();
        let result = torch.process(&[picture(5, 5, 0)]);
        assert!(matches!(result, Err(Error::Unsupported(_))), "{result:?}");
        let pillow = Processor::from_config(&text("ViTImageProcessorPil")).unwrap();
        assert!(pillow.process(&[picture(5, 5, 0)]).is_ok());
    }
}

#[test]
fn wrong_patch_layouts_are_errors() {
    let pixels = Tensor::from_f32(&vec![0.0; 3 * 12 * 8], &[3, 12, 8]).unwrap();
    let layout = |patch, temporal, merge| PatchLayout {
        patch,
        temporal,
        merge,
        order: PatchOrder::ChannelFirst,
    };
    for bad in [
        layout(0, 1, 1),
        layout(4, 0, 1),
        layout(4, 1, 0),
        layout(5, 1, 1),
        layout(4, 1, 2),
    ] {
        assert!(
            matches!(patchify(&pixels, bad), Err(Error::InvalidInput(_))),
            "{bad:?}"
        );
    }
    assert!(patchify(&pixels, layout(usize::MAX, 1, 2)).is_err());
    assert!(patchify(&pixels, layout(4, usize::MAX, 1)).is_err());
    let flat = Tensor::from_f32(&[0.0; 4], &[4]).unwrap();
    assert!(patchify(&flat, layout(1, 1, 1)).is_err());
    let empty = Tensor::from_f32(&[], &[3, 0, 8]).unwrap();
    assert!(patchify(&empty, layout(1, 1, 1)).is_err());
}

fn processor(config: Value) -> Processor {
    Processor::from_config(&config.to_string()).unwrap()
}

#[test]
fn a_token_budget_makes_pictures_smaller() {
    let smol = processor(
        json!({"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}),
    );
    let qwen = processor(json!({"image_processor_type": "Qwen2VLImageProcessorFast"}));
    let gemma = processor(json!({"image_processor_type": "Gemma4ImageProcessor"}));
    let sizes = [(4000, 3000), (640, 1000)];
    let cost = |p: &Processor| -> usize {
        let plans = sizes.iter().map(|&(w, h)| p.plan(w, h).unwrap());
        plans.map(|p| p.tokens(64) + p.marks()).sum()
    };
    for p in [&smol, &qwen, &gemma] {
        let full = cost(p);
        assert_eq!(&p.within(full, 64, &sizes).unwrap(), p);
        let mut last = full;
        for share in [full - 1, full * 3 / 4, full / 2, full / 3] {
            let less = p.within(share, 64, &sizes).unwrap();
            assert!(
                cost(&less) <= share && cost(&less) <= last,
                "{share} of {full}: {}",
                cost(&less)
            );
            last = cost(&less);
        }
        // Not wasted either: a family of fine steps comes close.
        if p == &qwen {
            assert!(cost(&p.within(full / 2, 64, &sizes).unwrap()) * 10 > full * 4);
        }
        let e = p.within(3, 64, &sizes).unwrap_err();
        assert!(e.to_string().contains("larger context"), "{e}");
    }
    // One tile, and none of the marks between tiles, is the least that SmolVLM needs.
    let least = smol.within(2 * 68, 64, &sizes).unwrap();
    assert!(
        sizes
            .iter()
            .all(|&(w, h)| least.plan(w, h).unwrap().inputs() == 1)
    );
}

#[test]
fn settings_belong_to_their_kind() {
    let qwen = processor(json!({"image_processor_type": "Qwen2VLImageProcessor"}));
    let mut o = Overrides::default();
    o.max_pixels = Some(28 * 28 * 4);
    let small = qwen.with(&o).unwrap();
    assert!(small.plan(1000, 1000).unwrap().tokens(0) <= 4);
    o.max_soft_tokens = Some(70);
    let e = qwen.with(&o).unwrap_err();
    assert!(e.to_string().contains("max_soft_tokens"), "{e}");
    o = Overrides::default();
    o.max_pixels = Some(10);
    assert!(qwen.with(&o).is_err());
    let gemma = processor(json!({"image_processor_type": "Gemma4ImageProcessor"}));
    o = Overrides::default();
    o.max_soft_tokens = Some(71);
    assert!(gemma.with(&o).is_err());
}

#[test]
fn three_generations_of_qwens_file() {
    let class = "Qwen2VLImageProcessor";
    let old = json!({"image_processor_type": class, "min_pixels": 3136, "max_pixels": 50176});
    let nested =
        json!({"image_processor_type": class, "size": {"min_pixels": 3136, "max_pixels": 50176}});
    let new = json!({"image_processor_type": class, "size": {"shortest_edge": 3136, "longest_edge": 50176}});
    assert_eq!(processor(old.clone()), processor(new.clone()));
    assert_eq!(processor(old), processor(nested));
    let whole = json!({"image_processor": new, "processor_class": "Qwen2VLProcessor", "video_processor": {}});
    assert_eq!(processor(new), processor(whole));
}

#[test]
fn the_length_of_a_tile_in_tokens_is_read_where_it_stands() {
    let inner = json!({"image_processor_type": "SmolVLMImageProcessorFast"});
    assert_eq!(processor(inner.clone()).image_seq_len(), None);
    let whole = json!({"image_processor": inner, "image_seq_len": 64});
    assert_eq!(processor(whole).image_seq_len(), Some(64));
}

proptest! {
    /// The patch rows hold every value once (twice where a frame is repeated), each at its place.
    #[test]
    fn patches_keep_every_value(
        f in 1usize..4, c in 1usize..4, gh in 1usize..4, gw in 1usize..4, patch in 1usize..4, merge in 1usize..3,
        temporal in 1usize..3, last in any::<bool>(),
    ) {
        let (h, w) = (gh * merge * patch, gw * merge * patch);
        let values: Vec<f32> = (0..f * c * h * w).map(|i| i as f32).collect();
        let pixels = Tensor::from_f32(&values, &[f, c, h, w]).unwrap();
        let order = if last { PatchOrder::ChannelLast } else { PatchOrder::ChannelFirst };
        let layout = PatchLayout { patch, temporal, merge, order };
        let patches = patchify(&pixels, layout).unwrap();
        let out = patches.values.as_f32().unwrap();
        let columns = c * temporal * patch * patch;
        prop_assert_eq!(patches.values.shape(), &[f.div_ceil(temporal) * (h / patch) * (w / patch), columns][..]);
        // Where the formula puts the value (t, c, y, x): block row, block column, then the place inside the block.
        let blocks = gw;
        for t in 0..f.div_ceil(temporal) * temporal {
            for ch in 0..c {
                for y in 0..h {
                    for x in 0..w {
                        let (py, px) = (y / patch, x / patch);
                        let block = (t / temporal * gh + py / merge) * blocks + px / merge;
                        let row = (block * merge + py % merge) * merge + px % merge;
                        let column = match last {
                            true => ((t % temporal * patch + y % patch) * patch + x % patch) * c + ch,
                            false => ((ch * temporal + t % temporal) * patch + y % patch) * patch + x % patch,
                        };
                        let want = values[((t.min(f - 1) * c + ch) * h + y) * w + x];
                        prop_assert_eq!(out[row * columns + column], want);
                    }
                }
            }
        }
    }

    /// Any JSON text is a processor or an error, and whatever it is keeps its word about the output's size.
    #[test]
    fn any_text_is_a_processor_or_an_error(
        class in prop::sample::select(vec!["ViT", "CLIP", "EfficientNet", "RTDetr", "Yolos", "SmolVLM", "Qwen2VL", "Gemma4", "Nothing"]),
        size in prop::sample::select(vec!["7", "[3, 4]", "{\"shortest_edge\": 9}", "{\"shortest_edge\": 5, \"longest_edge\": 9}", "null", "{}", "[1]", "1e3", "\"\""]),
        crop in any::<bool>(), w in 1usize..40, h in 1usize..40,
    ) {
        let text = format!(r#"{{"image_processor_type": "{class}ImageProcessor", "size": {size}, "do_center_crop": {crop}, "crop_size": 6}}"#);
        if let Ok(p) = Processor::from_config(&text) && let Ok(plan) = p.plan(w, h) {
            let made = p.process(&[picture(w, h, 3)]).unwrap();
            prop_assert_eq!(&made.plans, &[plan]);
        }
    }
}
