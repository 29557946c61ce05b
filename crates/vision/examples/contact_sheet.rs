//! What each processor makes of a picture, side by side: a sheet to look at.
//!
//! `cargo run -p firelight-vision --example contact_sheet -- sheet.png [PICTURE…]`; without pictures, the ten of `pictures/`.
//! Each row is a file, each column a processor: what the model gets to see of it, before it becomes numbers.

use firelight_vision::draw::LINE_HEIGHT;
use firelight_vision::{Filter, Image, Layout, Processor, Reference, decode, resize};
use std::path::PathBuf;

/// The most of a picture's sides on the sheet.
const CELL: usize = 168;
const GAP: usize = 8;
const INK: [u8; 3] = [20; 3];

const PROCESSORS: [(&str, &str); 9] = [
    ("CLIP", r#"{"image_processor_type": "CLIPImageProcessor"}"#),
    (
        "SigLIP",
        r#"{"image_processor_type": "SiglipImageProcessor"}"#,
    ),
    (
        "MobileNetV2",
        r#"{"image_processor_type": "MobileNetV2ImageProcessor"}"#,
    ),
    (
        "EfficientNet",
        r#"{"image_processor_type": "EfficientNetImageProcessor"}"#,
    ),
    (
        "SmolVLM",
        r#"{"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 1024}, "max_image_size": {"longest_edge": 512}}"#,
    ),
    (
        "Qwen2-VL",
        r#"{"image_processor_type": "Qwen2VLImageProcessor"}"#,
    ),
    (
        "Gemma 4",
        r#"{"image_processor_type": "Gemma4ImageProcessor"}"#,
    ),
    (
        "YOLOS",
        r#"{"image_processor_type": "YolosImageProcessor"}"#,
    ),
    (
        "RT-DETR",
        r#"{"image_processor_type": "RTDetrImageProcessor"}"#,
    ),
];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// As large as fits into a cell.
fn fitted(image: &Image, side: usize) -> Result<Image> {
    let scale = side as f64 / image.width().max(image.height()) as f64;
    let to = |n: usize| ((n as f64 * scale) as usize).max(1);
    Ok(resize(
        image,
        to(image.width()),
        to(image.height()),
        Filter::Lanczos3,
        Reference::Pillow,
    )?)
}

/// One cell: the only view, or the tiles in their places with the whole below.
fn cell(processor: &Processor, image: &Image) -> Result<(Image, String)> {
    let plan = processor.plan(image.width(), image.height())?;
    let views = processor.views(image)?;
    let (rows, cols) = match plan.layout {
        Layout::Tiles { rows, cols, .. } if rows > 0 => (rows, cols),
        _ => {
            let note = match plan.layout {
                Layout::Whole | Layout::Tiles { .. } => format!("{}x{}", plan.width, plan.height),
                _ => format!("{}x{}, {} tokens", plan.width, plan.height, plan.tokens(0)),
            };
            return Ok((fitted(&views[0], CELL)?, note));
        }
    };
    let side = (CELL - 2 * (cols.max(rows + 1))) / cols.max(rows + 1);
    let mut sheet = Image::filled(CELL, CELL, [255; 3])?;
    for (i, view) in views.iter().enumerate() {
        let (row, col) = (i / cols, i % cols);
        sheet.paste(&fitted(view, side)?, col * (side + 2), row * (side + 2));
    }
    Ok((sheet, format!("{rows} x {cols} tiles + 1")))
}

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let out = args.next().ok_or("give the PNG file to write")?;
    let mut files: Vec<PathBuf> = args.collect();
    if files.is_empty() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pictures");
        files = std::fs::read_dir(folder)?
            .map(|e| Ok(e?.path()))
            .collect::<Result<_>>()?;
        files.sort();
    }
    let (step_x, step_y) = (CELL + GAP, CELL + GAP + LINE_HEIGHT);
    let columns = PROCESSORS.len() + 1;
    let mut sheet = Image::filled(
        columns * step_x + GAP,
        files.len() * step_y + GAP + LINE_HEIGHT,
        [238; 3],
    )?;
    sheet.text(GAP, GAP / 2, "decoded, upright", INK, 1);
    for (i, (name, _)) in PROCESSORS.iter().enumerate() {
        sheet.text((i + 1) * step_x + GAP, GAP / 2, name, INK, 1);
    }
    for (row, file) in files.iter().enumerate() {
        let top = row * step_y + GAP + LINE_HEIGHT;
        let image =
            decode(&std::fs::read(file)?).map_err(|e| format!("{}: {e}", file.display()))?;
        sheet.paste(&fitted(&image, CELL)?, GAP, top);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        sheet.text(GAP, top + CELL, &name, INK, 1);
        for (i, (_, config)) in PROCESSORS.iter().enumerate() {
            let (picture, note) = cell(&Processor::from_config(config)?, &image)?;
            let left = (i + 1) * step_x + GAP;
            sheet.paste(&picture, left, top);
            sheet.text(left, top + CELL, &note, INK, 1);
        }
    }
    std::fs::write(&out, sheet.to_png()?)?;
    Ok(())
}
