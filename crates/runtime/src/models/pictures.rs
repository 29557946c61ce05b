//! A checkpoint's image processor and the tokens around a picture: what every vision-language family has.

use crate::checkpoint::{Checkpoint, Fields};
use crate::media::{MediaKind, Medium, Prepared};
use crate::{Error, Result};
use firelight_vision::{Plan, Processor};
use serde_json::Value;
use std::borrow::Cow;

/// See the module's head.
pub(super) struct Pictures {
    processor: Processor,
    tokenizer_config: Value,
    mark: String,
    placeholder: u32,
}

impl Pictures {
    /// Opens what is beside the weights. `mark` is the family's image token, unless the tokenizer's configuration has another.
    pub(super) fn open(checkpoint: &Checkpoint, config: &Value, mark: &str) -> Result<Self> {
        let text = |name: &str| -> Result<Option<String>> {
            let bytes = checkpoint.side_file(name)?;
            Ok(bytes.map(|b| String::from_utf8_lossy(&b).into_owned()))
        };
        // The older file has the picture's part alone, the newer one all parts.
        let (old, new) = (
            text("preprocessor_config.json")?,
            text("processor_config.json")?,
        );
        let parts = |json: &String| json.contains("image_processor");
        let json = new.filter(parts).or(old).ok_or_else(|| {
            Error::malformed(
                checkpoint.root().display().to_string(),
                "neither preprocessor_config.json nor processor_config.json is there; pictures need one",
            )
        })?;
        let tokenizer_config = match text("tokenizer_config.json")? {
            Some(json) => serde_json::from_str(&json)
                .map_err(|e| Error::malformed("tokenizer_config.json", e.to_string()))?,
            None => Value::Null,
        };
        let c = Fields(config);
        let id = match c.maybe_size("image_token_id")? {
            Some(id) => id,
            None => c.size("image_token_index")?,
        };
        let mut pictures = Pictures {
            processor: Processor::from_config(&json)?,
            mark: String::new(),
            placeholder: id as u32,
            tokenizer_config,
        };
        pictures.mark = pictures.token("image_token", mark).into_owned();
        Ok(pictures)
    }

    /// Whether a checkpoint has what pictures need beside the weights: a text model alone can do without.
    pub(super) fn are_there(checkpoint: &Checkpoint) -> Result<bool> {
        for name in ["preprocessor_config.json", "processor_config.json"] {
            if checkpoint.side_file(name)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A special token of the tokenizer's configuration, as text.
    pub(super) fn token<'a>(&'a self, key: &str, default: &'a str) -> Cow<'a, str> {
        let found = self.tokenizer_config.get(key);
        let found = found.and_then(|v| v.as_str().or_else(|| v.get("content")?.as_str()));
        Cow::Borrowed(found.unwrap_or(default))
    }

    /// The image token.
    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// Its id.
    pub(super) fn placeholder(&self) -> u32 {
        self.placeholder
    }

    /// Tokens of one input of the tower, where the checkpoint says so.
    pub(super) fn image_seq_len(&self) -> Option<usize> {
        self.processor.image_seq_len()
    }

    /// Processes a picture so that it takes at most `budget` tokens, `per_input` for each input of the tower. `text` and `grid` come from
    /// the plan.
    pub(super) fn prepare(
        &self,
        medium: &Medium,
        budget: Option<usize>,
        per_input: usize,
        text: impl Fn(&Plan) -> String,
        grid: impl Fn(&Plan) -> [usize; 3],
    ) -> Result<Prepared> {
        let Medium::Image(image) = medium else {
            return Err(Error::invalid(format!(
                "a vision tower and a medium of kind {}",
                medium.kind().name()
            )));
        };
        let size = (image.width(), image.height());
        let fitting = budget
            .map(|tokens| self.processor.within(tokens, per_input, &[size]))
            .transpose()?;
        let processor = fitting.as_ref().unwrap_or(&self.processor);
        let processed = processor.process(std::slice::from_ref(image.as_ref()))?;
        let plan = processed
            .plans
            .first()
            .ok_or_else(|| Error::invalid("a processor without a plan"))?;
        let tensors = processed.tensors()?;
        Ok(Prepared {
            kind: MediaKind::Image,
            text: text(plan),
            tokens: plan.tokens(per_input),
            grid: grid(plan),
            tensors: tensors
                .into_iter()
                .map(|(n, t)| (n.to_owned(), t))
                .collect(),
        })
    }
}
