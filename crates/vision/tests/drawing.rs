//! Boxes against torchvision's operators, and what is drawn.

use firelight_vision::draw::{Detection, LINE_HEIGHT, heat, palette, text_width};
use firelight_vision::{BoxFormat, Error, Image, Rect, decode, nms};
use proptest::prelude::*;
use serde_json::Value;

fn rects(v: &Value) -> Vec<Rect> {
    let rows = v.as_array().unwrap().iter();
    rows.map(|r| Rect::from_format(numbers(r).try_into().unwrap(), BoxFormat::Corners))
        .collect()
}

fn numbers(v: &Value) -> Vec<f32> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_f64().unwrap() as f32)
        .collect()
}

fn indices(v: &Value) -> Vec<usize> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_u64().unwrap() as usize)
        .collect()
}

#[test]
fn boxes_equal_torchvisions() {
    let goldens: Value = serde_json::from_str(include_str!("data/boxes.json")).unwrap();
    let cases = goldens.as_array().unwrap();
    assert!(cases.len() >= 6);
    for case in cases {
        let boxes = rects(&case["boxes"]);
        let scores = numbers(&case["scores"]);
        let classes = indices(&case["classes"]);
        let threshold = case["threshold"].as_f64().unwrap() as f32;
        assert_eq!(
            nms(&boxes, &scores, None, threshold).unwrap(),
            indices(&case["nms"])
        );
        assert_eq!(
            nms(&boxes, &scores, Some(&classes), threshold).unwrap(),
            indices(&case["batched_nms"])
        );
        for (i, row) in case["iou"].as_array().unwrap().iter().enumerate() {
            for (j, want) in numbers(row).into_iter().enumerate() {
                let ours = boxes[i].iou(boxes[j]);
                assert!((ours - want).abs() <= 1e-6, "{i} {j}: {ours} {want}");
            }
        }
        for (name, format) in [
            ("xywh", BoxFormat::CornerSize),
            ("cxcywh", BoxFormat::CenterSize),
        ] {
            for (rect, want) in boxes.iter().zip(case[name].as_array().unwrap()) {
                let want: [f32; 4] = numbers(want).try_into().unwrap();
                assert_eq!(rect.to_format(format), want);
                let back = Rect::from_format(want, format).to_format(BoxFormat::Corners);
                for (a, b) in back.iter().zip(rect.to_format(BoxFormat::Corners)) {
                    assert!((a - b).abs() <= 1e-4, "{back:?} {rect:?}");
                }
            }
        }
    }
}

#[test]
fn odd_boxes() {
    let nothing = Rect::default();
    assert_eq!(nothing.iou(nothing), 0.0);
    let unit = Rect::from_format([0.0, 0.0, 1.0, 1.0], BoxFormat::Corners);
    assert_eq!(unit.iou(unit), 1.0);
    let inside_out = Rect::from_format([1.0, 1.0, 0.0, 0.0], BoxFormat::Corners);
    assert_eq!(inside_out.area(), 0.0);
    // From shares of a picture to its pixels, and no further than its edge.
    let share = Rect::from_format([0.5, 0.5, 1.0, 0.5], BoxFormat::CenterSize);
    let pixels = share.rescaled((1.0, 1.0), (640.0, 480.0));
    assert_eq!(
        pixels.to_format(BoxFormat::Corners),
        [0.0, 120.0, 640.0, 360.0]
    );
    assert_eq!(
        pixels.clipped(600.0, 300.0).to_format(BoxFormat::Corners),
        [0.0, 120.0, 600.0, 300.0]
    );
    assert!(matches!(
        nms(&[unit], &[], None, 0.5),
        Err(Error::InvalidInput(_))
    ));
    assert_eq!(
        nms(&[unit, unit], &[f32::NAN, 0.1], None, 0.5).unwrap(),
        [1]
    );
    assert!(nms(&[], &[], None, 0.5).unwrap().is_empty());
}

fn luminance(c: [u8; 3]) -> f32 {
    let [r, g, b] = c.map(|c| (f32::from(c) / 255.0).powf(2.2));
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

#[test]
fn labels_are_legible_on_anything() {
    for background in [[0; 3], [255; 3], [128; 3], [255, 0, 0], [90, 140, 60]] {
        for class in 0..24 {
            let mut image = Image::filled(120, 40, background).unwrap();
            image.label(3.0, 4.0, "cat 93 %", palette(class), 1);
            let plate = palette(class);
            assert_eq!(image.pixel(3, 4), Some(plate));
            // The strongest ink on the plate contrasts by 4.5 : 1 at least, whatever lies around.
            let contrast = |c: [u8; 3]| {
                let (a, b) = (luminance(c), luminance(plate));
                (a.max(b) + 0.05) / (a.min(b) + 0.05)
            };
            let inside = (4..4 + LINE_HEIGHT)
                .flat_map(|y| (3..3 + text_width("cat 93 %")).map(move |x| (x, y)));
            let best = inside
                .filter_map(|(x, y)| image.pixel(x, y))
                .map(contrast)
                .fold(0.0, f32::max);
            assert!(best >= 4.5, "class {class}: {best}");
        }
    }
}

#[test]
fn classes_and_levels_differ() {
    for i in 0..12 {
        for j in 0..i {
            let d: i32 = palette(i)
                .iter()
                .zip(palette(j))
                .map(|(&a, b)| (i32::from(a) - i32::from(b)).abs())
                .sum();
            assert!(d > 40, "{i} {j}");
        }
    }
    let steps = (0..=20).map(|i| luminance(heat(i as f32 / 20.0)));
    assert!(steps.collect::<Vec<_>>().is_sorted());
}

#[test]
fn masks_and_maps_cover_what_they_should() {
    let mut image = Image::filled(40, 20, [100; 3]).unwrap();
    image
        .mask(&[0.9, 0.1], (2, 1), 0.5, [255, 0, 0], 0.5)
        .unwrap();
    let tinted = image.pixel(10, 10).unwrap();
    assert!(tinted[0] > 150 && tinted[1] < 80, "{tinted:?}");
    assert_eq!(image.pixel(30, 10), Some([100; 3]));
    assert_eq!(image.pixel(19, 10), Some([255, 0, 0]), "the edge is whole");
    let mut image = Image::filled(40, 20, [100; 3]).unwrap();
    image
        .heat_map(&[0.0, 1.0, f32::NAN, 0.5], (2, 2), 1.0)
        .unwrap();
    assert_eq!(image.pixel(0, 0), Some(heat(0.0)));
    assert_eq!(image.pixel(39, 0), Some(heat(1.0)));
    for bad in [(2, 2), (0, 1), (usize::MAX, 2)] {
        assert!(image.mask(&[1.0], bad, 0.5, [0; 3], 1.0).is_err());
        assert!(image.heat_map(&[1.0], bad, 1.0).is_err());
    }
}

#[test]
fn a_png_file_holds_the_picture() {
    let mut image = Image::filled(33, 7, [1, 2, 3]).unwrap();
    image.text(1, 1, "ä?", [200, 100, 50], 1);
    let again = decode(&image.to_png().unwrap()).unwrap();
    assert_eq!(again, image);
}

proptest! {
    /// Whatever is drawn wherever, nothing panics and the size stays.
    #[test]
    fn drawing_anywhere_is_safe(
        w in 1usize..50, h in 1usize..50, at in prop::array::uniform4(prop_oneof![-1e9f32..1e9, -60f32..60.0, Just(f32::NAN), Just(f32::INFINITY)]),
        text in ".{0,12}", thickness in 0usize..9, score in any::<f32>(), class in any::<usize>(), scale in 0usize..4,
    ) {
        let mut image = Image::filled(w, h, [9; 3]).unwrap();
        let rect = Rect::from_format(at, BoxFormat::Corners);
        image.fill(rect, [1, 2, 3], 0.4);
        image.frame(rect, [255; 3], thickness);
        image.label(at[0], at[1], &text, [7; 3], scale);
        image.detections(&[Detection { rect, label: text, class, score }]);
        let other = image.clone();
        image.paste(&other, thickness * 9, class % 70);
        prop_assert_eq!((image.width(), image.height()), (w, h));
    }
}
