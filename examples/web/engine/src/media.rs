//! Pictures of a conversation, as the page's side gives them: encoded files.

#[cfg(not(feature = "vision"))]
use crate::error::other_part;
#[cfg(feature = "vision")]
use crate::error::{invalid, unsupported};
use firelight_runtime::LoadedModel;
use firelight_runtime::media::{MediaKind, Medium};
use js_sys::Uint8Array;
use wasm_bindgen::JsValue;

/// What a model takes beside text.
pub(crate) fn accepts(model: &LoadedModel, kind: MediaKind) -> bool {
    model.model.tower(kind).is_some()
}

/// Decoded pictures, in order.
#[cfg_attr(not(feature = "vision"), allow(unused_variables))]
pub(crate) fn pictures(model: &LoadedModel, files: &[Uint8Array]) -> Result<Vec<Medium>, JsValue> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    #[cfg(not(feature = "vision"))]
    {
        Err(other_part("pictures"))
    }
    #[cfg(feature = "vision")]
    {
        if !accepts(model, MediaKind::Image) {
            return Err(unsupported(
                "the loaded model takes no pictures",
                "Load a vision-language model.",
            ));
        }
        let mut pictures = Vec::with_capacity(files.len());
        for (i, file) in files.iter().enumerate() {
            let picture = firelight_vision::decode(&file.to_vec())
                .map_err(|e| invalid(format!("picture {}: {e}", i + 1)))?;
            pictures.push(picture.into());
        }
        Ok(pictures)
    }
}
