//! Pictures to the tensors of a processor, without a model.

use js_sys::{Function, Uint8Array};
use wasm_bindgen::prelude::*;

/// What an image processor makes of encoded pictures. `config` is the text of a `preprocessor_config.json`, `reference` whose rounding to
/// equal (`torchvision`, `pillow`, or nothing for what the class's name says). Calls `tensor(name, dtype, shape, bytes)` for each tensor, under
/// the reference's names and in its order, `dtype` being `f32` or `i64`; gives JSON about the pictures.
///
/// # Errors
/// An object with a code.
#[allow(unreachable_pub)] // reached from JavaScript
#[cfg_attr(not(feature = "vision"), allow(unused_variables))]
#[wasm_bindgen]
pub fn preprocess(
    images: Vec<Uint8Array>,
    config: String,
    reference: Option<String>,
    tensor: Function,
) -> Result<String, JsValue> {
    #[cfg(not(feature = "vision"))]
    {
        Err(crate::error::other_part("pictures"))
    }
    #[cfg(feature = "vision")]
    {
        with::run(&images, &config, reference.as_deref(), &tensor)
    }
}

#[cfg(feature = "vision")]
mod with {
    use crate::error::{invalid, to_js};
    use firelight_runtime::Error;
    use firelight_vision::{Layout, Plan, Processor, Reference, decode};
    use js_sys::{Array, Function, Uint8Array, Uint32Array};
    use serde_json::{Value, json};
    use wasm_bindgen::JsValue;

    pub(super) fn run(
        images: &[Uint8Array],
        config: &str,
        reference: Option<&str>,
        tensor: &Function,
    ) -> Result<String, JsValue> {
        let vision = |e| to_js(Error::Vision(e));
        let processor = match reference {
            None => Processor::from_config(config),
            Some("torchvision") => Processor::from_config_as(config, Reference::Torchvision),
            Some("pillow") => Processor::from_config_as(config, Reference::Pillow),
            Some(other) => {
                let known = "known: torchvision, pillow";
                return Err(invalid(format!("reference `{other}`; {known}")));
            }
        };
        let processor = processor.map_err(vision)?;
        let mut sizes = Vec::with_capacity(images.len());
        // One decoded picture at a time.
        let each = images.iter().map(|file| {
            let picture = decode(&file.to_vec())?;
            sizes.push([picture.width(), picture.height()]);
            Ok(picture)
        });
        let made = processor.process_each(each).map_err(vision)?;
        let seq_len = processor.image_seq_len();
        let about = made
            .plans
            .iter()
            .zip(sizes)
            .map(|(plan, size)| about(plan, size, seq_len));
        let about = Value::Array(about.collect()).to_string();
        for (name, t) in made.tensors().map_err(vision)? {
            let shape: Vec<u32> = t.shape().iter().map(|&n| n as u32).collect();
            let args = Array::of4(
                &name.into(),
                &t.dtype().to_string().into(),
                &Uint32Array::from(shape.as_slice()),
                &Uint8Array::from(t.bytes()),
            );
            tensor.apply(&JsValue::NULL, &args)?;
        }
        Ok(about)
    }

    /// A picture's size, what it was resized to, and what it costs in a prompt where the file says that.
    fn about(plan: &Plan, [width, height]: [usize; 2], seq_len: Option<usize>) -> Value {
        let tokens = match plan.layout {
            Layout::Whole | Layout::Tiles { .. } => seq_len.map(|n| plan.tokens(n)),
            _ => Some(plan.tokens(0)),
        };
        json!({
            "width": width, "height": height, "resized": [plan.width, plan.height], "inputs": plan.inputs(),
            "tokens": tokens,
        })
    }
}
